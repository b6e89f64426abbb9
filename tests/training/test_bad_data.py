"""Trainings on data sets as they are: each bad file is read, skipped with a line, or refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from bad_images import FILES, SIZE, SPECIAL, encoded, pixels, write_bad
from conftest import load_tool
from mmcv.transforms import LoadImageFromFile
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from own_files import DETECTOR, SEGMENTER
from PIL import Image
from slow import few
from trained_models import write_segmenter

from vit_backbones.checks.data import loaded_by
from vit_backbones.images import read_image

GOOD = [f'good{i}.png' for i in range(6)]
CROP = (
    "dict(type='LoadAnnotations'), dict(type='Pack",
    "dict(type='LoadAnnotations'), dict(type='RandomCrop', crop_size=(64, 96)), dict(type='Pack",
)
EARLY, EMPTY = 'ValueError: it ends too early', 'ValueError: it is empty'
MISSING = "FileNotFoundError: [Errno 2] No such file or directory: '{}'"
NO_IMAGE = 'AssertionError: failed to load image: {}'


def labels(size=SIZE, values=(0, 1)):
    return Image.fromarray(np.resize(np.array(values, np.uint8), size))


def write_folders(root, names):
    """Images with label maps of their size, for the segmenter."""
    for folder in ('images', 'labels'):
        (root / folder).mkdir(parents=True)
    for name in names:
        if name in (*FILES, *SPECIAL):
            write_bad(root / 'images' / name)
        else:
            pixels().save(root / 'images' / name)
        labels((30, 900) if name == 'long.png' else SIZE).save(
            (root / 'labels' / name).with_suffix('.png')
        )


def segmenter(**changes):
    text = SEGMENTER.replace(*CROP) + (
        "val_dataloader['dataset'] = dict(val_dataloader['dataset'], data_root='val')\n"
        'test_dataloader = val_dataloader\n'
    )
    Path('c.py').write_text(text)
    return ['c.py', *(['--cfg-options', *(f'{k}={v}' for k, v in changes.items())] * bool(changes))]


def skipped(output):
    """The reason of each file that was skipped, and the last line's counts."""
    reasons = dict(re.findall(r'skipped unreadable training image (\S+) \((.*)\)', output))
    [counts] = re.findall(r'skipped \d+ unreadable training images?: (.*)', output)
    return {Path(path).name: reason for path, reason in reasons.items()}, counts


# What the label map of an image is, and why it is skipped
MASKS = {
    'other_size.png': (
        lambda path: labels((32, 48)).save(path),
        'ValueError: 1 of 1 label maps have another size than their image, the first is {} (48x32 '
        'pixels, the image 96x64): make them equal',
    ),
    'colours.png': (
        lambda path: pixels().save(path),
        'ValueError: 1 of 1 label maps hold colours, not labels, the first is {}: write one '
        'channel, in which a pixel is the number of its class',
    ),
    'beyond.png': (
        lambda path: labels(values=(0, 1, 7)).save(path),
        'ValueError: {} holds label 7, but labels of 2 classes run from 0 to 1: name all classes, '
        'or draw the labels anew (reduce_zero_label=True takes 1 off each)',
    ),
    'half_mask.png': (
        lambda path: path.write_bytes(encoded(pixels('L'), 'PNG')[:3000]),
        EARLY,
    ),
    'no_mask.png': (
        lambda path: path.unlink(),
        MISSING,
    ),
}


def test_a_segmenter_goes_on_without_bad_files(train, capfd, monkeypatch):
    """Every kind at once, beyond the sample of label maps that is looked at before the start."""
    monkeypatch.setattr('vit_backbones.checks.label_maps._SAMPLE', 1)
    bad = [name for name in (*FILES, *SPECIAL) if name.endswith('.png')]
    write_folders(Path('seg'), [*GOOD, *bad, *MASKS])
    write_folders(Path('val'), GOOD)
    for name, (write, _) in MASKS.items():
        write(Path('seg/labels') / name)
    assert train(segmenter(**{'train_cfg.max_epochs': 3})) == 0
    output = ''.join(capfd.readouterr())
    reasons, counts = skipped(output)
    assert reasons == {
        'half.png': EARLY,
        'empty.png': EMPTY,
        'text.png': NO_IMAGE.format('seg/images/text.png'),
        **{name: reason.format(f'seg/labels/{name}') for name, (_, reason) in MASKS.items()},
    }
    times = dict(re.findall(r'(\S+) \((\d+) times?\)', counts))
    assert times.keys() == reasons.keys()
    assert all(int(number) >= 3 for number in times.values())  # once an epoch, and as replacements
    assert 'training EncoderDecoder' in output
    assert '; 20 images in batches of 2' in output  # all that are files
    assert (
        "train_dataloader.dataset: of the entries of 'seg/images' that end in .png, 3 are folders, "
        'devices or links to nothing, and left out (seg/images/dangling.png, seg/images/device.png,'
        ' seg/images/folder.png): repair or remove them'
    ) in output
    assert 'Traceback' not in output


@HOOKS.register_module()
class RemovesFilesHook(Hook):
    """Lets files vanish after the first epoch."""

    def __init__(self, files):
        self.files = files

    def after_train_epoch(self, runner):
        for name in self.files:
            Path(name).unlink(missing_ok=True)


def removing(*files):
    hook = f"[dict(type='RemovesFilesHook', files={[*files]})]"
    return {'train_cfg.max_epochs': 2, 'custom_hooks': hook}


def test_a_file_that_vanishes_is_skipped(train, capfd):
    write_folders(Path('seg'), GOOD)
    write_folders(Path('val'), GOOD)
    gone = 'seg/images/good1.png', 'seg/labels/good2.png'
    assert train(segmenter(**removing(*gone))) == 0
    reasons, _ = skipped(''.join(capfd.readouterr()))
    assert reasons == {Path(path).name: MISSING.format(path) for path in gone}


@pytest.mark.parametrize('workers', [0, 1])
def test_a_validation_image_that_vanishes_is_named(workers, train, capfd):
    write_folders(Path('seg'), GOOD)
    write_folders(Path('val'), GOOD)
    options = removing('val/images/good4.png') | {'val_dataloader.num_workers': workers}
    assert train(segmenter(**options)) == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert last == (
        'error: validation image val/images/good4.png cannot be read (FileNotFoundError: [Errno 2] '
        "No such file or directory: 'val/images/good4.png'): repair it, or take it out of the data"
    )


# A file to validate on, and the line before the start
REFUSED = {
    'half.png': '1 val image cannot be decoded: val/images/half.png (it ends too early)',
    'empty.png': '1 val image cannot be decoded: val/images/empty.png (it is empty)',
    'text.png': '1 val image cannot be decoded: val/images/text.png (failed to load image: '
    'val/images/text.png)',
}


@pytest.mark.parametrize('name', few(REFUSED, 'half.png'))
@pytest.mark.parametrize('split', ['val', 'test'])
def test_a_file_to_measure_on_is_refused_before_the_start(name, split, folder, capfd):
    write_folders(Path('seg'), GOOD)
    write_folders(Path('val'), [*GOOD, name])
    options = segmenter()
    if split == 'test':
        more = "test_dataloader['dataset']['data_root'] = 'val'\nval_dataloader = None\n"
        more += "test_evaluator, test_cfg = dict(type='IoUMetric'), dict()\n"
        options = write_segmenter(folder, more)
    code = load_tool('train' if split == 'val' else 'test').main([*options])
    last = capfd.readouterr().err.splitlines()[-1]
    line = REFUSED[name].replace('1 val', f'1 {split}').replace('val/labels', 'val/labels')
    assert (code, last) == (2, f'error: {line}; repair or remove them')


# What a training reads of a file: its (H, W)
READ = dict.fromkeys(
    (
        'png.jpg', 'grey.png', 'alpha.png', 'palette.png', 'cmyk.jpg', 'deep.png', 'turned.jpg',
        'animated.png',
    ),
    SIZE,
) | {'long.png': (30, 900)}  # fmt: skip


@pytest.mark.parametrize('name', READ)
def test_what_is_read(name, tmp_path):
    """Trainings see the pixels that predictions see, three channels of 8 bits."""
    write_bad(tmp_path / name)
    seen = loaded_by([LoadImageFromFile()], dict(img_path=str(tmp_path / name)))['img']
    assert (seen.shape, seen.dtype) == ((*READ[name], 3), np.uint8)
    shown = read_image(tmp_path / name)[..., ::-1]
    tolerance = 3 if name.endswith('.jpg') else 0  # of two decoders
    assert np.abs(seen.astype(int) - shown).max() <= tolerance


def write_boxes(root, names, missing=()):
    """A COCO file of a box in each image but the last, which has none."""
    (root / 'images').mkdir(parents=True)
    for name in names:
        if name in (*FILES, *SPECIAL):
            write_bad(root / 'images' / name)
        else:
            pixels().save(root / 'images' / name)
    sizes = {'long.png': (30, 900), 'listed.png': (64, 100)}
    images = [
        dict(id=i, file_name=name, height=h, width=w)
        for i, name in enumerate([*names, *missing])
        for h, w in [sizes.get(name, SIZE)]
    ]
    square = [[10, 10, 40, 10, 40, 30, 10, 30]]
    annotations = [
        dict(id=i, image_id=i, category_id=1 + i % 3, bbox=[10, 10, 30, 20], area=600, iscrowd=0)
        | dict(segmentation=square)
        for i in range(len(images) - 1)
    ]
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(('cat', 'dog', 'cow'))]
    content = dict(images=images, annotations=annotations, categories=categories)
    (root / 'boxes.json').write_text(json.dumps(content))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_detector_goes_on_without_bad_files(train, capfd, monkeypatch):
    """Every kind at once; sizes of images are looked at beyond the first by the training only."""
    monkeypatch.setattr('vit_backbones.checks.data._SAMPLED', 1)
    write_boxes(Path('det'), [*GOOD, *FILES, *SPECIAL, 'listed.png', 'none.png'], ['gone.png'])
    write_boxes(Path('val'), GOOD)
    more = (
        "train_dataloader['dataset']['data_root'] = 'det'\n"
        "val_dataloader['dataset'] = dict(val_dataloader['dataset'], data_root='val')\n"
        "val_evaluator = test_evaluator = dict(type='CocoMetric', ann_file='val/boxes.json')\n"
        'test_dataloader = val_dataloader\n'
        'model.update(test_cfg=dict(rpn=dict(nms_pre=9, max_per_img=9, min_bbox_size=0, '
        "nms=dict(type='nms', iou_threshold=0.7)), rcnn=dict(score_thr=0.5, max_per_img=2, "
        "mask_thr_binary=0.5, nms=dict(type='nms', iou_threshold=0.5))))\n"
    )
    load, resize, rest = re.findall(r'^    dict\(type=.*\),\n', DETECTOR, re.M)[:3]
    text = DETECTOR.replace(load + resize + rest, load + rest + resize)
    Path('c.py').write_text(text + more)
    assert train(['c.py']) == 0
    output = ''.join(capfd.readouterr())
    reasons, _ = skipped(output)
    assert reasons == {
        'half.jpg': EARLY,
        'half.png': EARLY,
        'empty.png': EMPTY,
        'text.png': NO_IMAGE.format('det/images/text.png'),
        'folder.png': 'ValueError: it is a folder, no file',
        'device.png': 'ValueError: it is a device, no file',
        'dangling.png': MISSING.format('det/images/dangling.png'),
        'gone.png': MISSING.format('det/images/gone.png'),
        'listed.png': 'ValueError: it is 96x64 pixels and listed as 100x64, so that its objects '
        'lie elsewhere',
    }
    assert 'Traceback' not in output
