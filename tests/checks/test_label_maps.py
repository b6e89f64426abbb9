"""Label maps of mmseg: labels that no class has, and classes that no label map has."""

import json
from pathlib import Path

import numpy as np
import pytest
from checked_configs import SEGMENTER
from conftest import load_tool
from mmengine.config import Config
from PIL import Image

from vit_backbones.checks.data import few_findings, image_findings
from vit_backbones.checks.label_maps import sample_findings
from vit_backbones.config.datasets import build_dataset
from vit_backbones.training.run import prepare

PLACE = 'train_dataloader.dataset'
ZERO = (
    '; reduce_zero_label=True takes 1 off each label and ignores label 0: leave it out, in '
    'LoadAnnotations too, if 0 is a class'
)


def draw(labels, number=4, root='seg', suffix='png', size=(64, 96)):
    """Images with label maps; `labels` are the values of each map, or an array."""
    for name in ('images', 'labels'):
        (Path(root) / name).mkdir(parents=True, exist_ok=True)
    for index in range(number):
        Image.new('RGB', (96, 64)).save(f'{root}/images/{index:03d}.png')
        array = labels if isinstance(labels, np.ndarray) else np.array(labels, np.uint8)
        values = array if array.ndim > 1 else np.resize(array, size)
        Image.fromarray(values).save(f'{root}/labels/{index:03d}.{suffix}')


@pytest.fixture
def found(tmp_path, monkeypatch):
    """Findings of `image_findings` or another function on the segmenter's data."""
    monkeypatch.chdir(tmp_path)

    def find(split='train', look=image_findings, **changes):
        Path('seg.py').write_text(SEGMENTER)
        config = Config.fromfile('seg.py')
        config.train_dataloader.dataset.update(changes)
        config[f'{split}_dataloader'] = config.train_dataloader
        return [str(each) for each in look(build_dataset(config, split), split)]

    return find


IN_ORDER = {
    'both classes': ((0, 1), {}),
    'a border that is ignored': ((0, 1, 1, 255), {}),
    'two of three pixels reduced': ((1, 2, 1), dict(reduce_zero_label=True)),
}


@pytest.mark.parametrize('look', [image_findings, few_findings])
@pytest.mark.parametrize('case', IN_ORDER)
def test_what_is_in_order_has_no_line(case, look, found):
    labels, changes = IN_ORDER[case]
    draw(labels)
    assert found(look=look, **changes) == []


WRONG = {
    'black and white': (
        (0, 255),
        {},
        f'error: {PLACE}: 4 label maps hold only 0 and 255, such as seg/labels/000.png, and 255 is '
        'ignored, so no object is learned: draw objects as 1, or as the number of their class',
    ),
    'black and white, reduced': (
        (0, 255),
        dict(reduce_zero_label=True),
        f'error: {PLACE}: its 4 label maps hold only 255, which is ignored{ZERO}',
    ),
    'all ignored': (
        (255,),
        {},
        f'error: {PLACE}: its 4 label maps hold only 255, which is ignored',
    ),
    'reduced once too often': (
        (0, 0, 0, 1),
        dict(reduce_zero_label=True),
        f"error: {PLACE}: its 4 label maps hold only class 'road' and 75% ignored pixels, so there "
        f'is nothing to tell apart{ZERO}',
    ),
    'one class': (
        (1,),
        {},
        f"error: {PLACE}: its 4 label maps hold only class 'sky', so there is nothing to tell "
        'apart',
    ),
    'grey': (
        (0, 128, 255),
        {},
        f'error: {PLACE}: seg/labels/000.png holds label 128, and 3 more label maps too, but '
        'labels of 2 classes run from 0 to 1: name all classes, or draw the labels anew '
        '(reduce_zero_label=True takes 1 off each)',
    ),
    'another label is ignored': (
        (0, 1, 255),
        dict(ignore_index=7),
        f'error: {PLACE}: seg/labels/000.png holds label 255, and 3 more label maps too, but '
        'labels of 2 classes run from 0 to 1: draw objects as the number of their class, not as '
        '255',
    ),
    'colours': (
        np.full((64, 96, 3), 1, np.uint8),
        {},
        f'error: {PLACE}: 4 of 4 label maps hold colours, not labels, the first is '
        'seg/labels/000.png: write one channel, in which a pixel is the number of its class',
    ),
    'grey with alpha': (
        np.full((64, 96, 2), 1, np.uint8),
        {},
        f'error: {PLACE}: 4 of 4 label maps hold colours, not labels, the first is '
        'seg/labels/000.png: write one channel, in which a pixel is the number of its class',
    ),
    '16 bits': (
        np.resize(np.array([0, 1, 256, 257], np.uint16), (64, 96)),
        {},
        f'error: {PLACE}: 4 of 4 label maps hold fractions or numbers beyond 255, which mmseg cuts '
        'to 8 bits, the first is seg/labels/000.png: write labels from 0 to 255 with 8 bits',
    ),
    'half the size': (
        np.resize(np.array([0, 1], np.uint8), (32, 48)),
        {},
        f'error: {PLACE}: 4 of 4 label maps have another size than their image, the first is '
        'seg/labels/000.png (48x32 pixels, the image 96x64): make them equal',
    ),
    'turned': (
        np.resize(np.array([0, 1], np.uint8), (96, 64)),
        {},
        f'error: {PLACE}: 4 of 4 label maps have another size than their image, the first is '
        'seg/labels/000.png (64x96 pixels, the image 96x64; an EXIF orientation turns images only)'
        ': make them equal',
    ),
}


@pytest.mark.parametrize('look', [image_findings, few_findings])
@pytest.mark.parametrize('case', WRONG)
def test_what_no_training_can_use_is_an_error(case, look, found):
    labels, changes, line = WRONG[case]
    draw(labels)
    assert found(look=look, **changes) == [line]


def test_labels_of_16_bits_that_8_can_hold_pass(found):
    draw(np.resize(np.array([0, 1], np.uint16), (64, 96)))
    assert found() == []


def test_fractions_are_refused(found):
    draw(np.resize(np.array([0, 1, 0.5], np.float32), (64, 96)), suffix='tif')
    (line,) = found(seg_map_suffix='.tif')
    assert 'label maps hold fractions or numbers beyond 255' in line


def test_jpeg_is_named_where_it_changes_labels(found):
    draw(np.random.default_rng(0).integers(0, 2, (64, 96), np.uint8) * 40, suffix='jpg')
    (line,) = found(seg_map_suffix='.jpg')
    assert line.endswith(
        'labels of 2 classes run from 0 to 1: JPEG changes labels; save them as PNG'
    )


CLASSES = dict(classes=[f'c{n}' for n in range(8)])


@pytest.mark.parametrize(
    ('split', 'labels', 'end'),
    [
        ('train', (0, 1, 2, 3, 4, 5, 7), 'class c6 occurs in none of 4 label maps: it is never '
         'learned'),
        ('val', (0, 1, 2, 3, 4, 5, 7), 'class c6 occurs in none of 4 label maps: its IoU is nan'),
        ('train', (0, 1), 'classes c2, c3, c4, c5, c6, ... occur in none of 4 label maps: they '
         'are never learned'),
    ],
)  # fmt: skip
def test_classes_that_never_occur_are_warned_of(split, labels, end, found):
    draw(labels)
    expected = [f'warning: {split}_dataloader.dataset: {end}']
    assert found(split, metainfo=CLASSES) == expected


def test_a_class_that_reduced_labels_leave_empty_has_the_reason(found):
    draw((0, 1, 2, 3, 4, 5, 6, 7))
    line = f'warning: {PLACE}: class c7 occurs in none of 4 label maps: it is never learned{ZERO}'
    assert found(metainfo=CLASSES, reduce_zero_label=True) == [line]


def test_many_ignored_pixels_are_warned_of(found):
    draw((0, 1, 255, 255, 255))
    assert found() == [f'warning: {PLACE}: its 4 label maps hold 60% ignored pixels']


@pytest.mark.parametrize('split', ['val', 'test'])
def test_what_is_only_measured_is_a_warning(split, found):
    draw((0, 255))
    (line,) = found(split)
    assert line.startswith(f'warning: {split}_dataloader.dataset: 4 label maps hold only 0 and 255')


def two_datasets(config):
    first = config.train_dataloader.dataset
    both = [first, first | dict(data_root='other')]
    config.train_dataloader.dataset = dict(type='ConcatDataset', datasets=both)
    return build_dataset(config, 'train')


@pytest.mark.parametrize('look', [image_findings, few_findings])
def test_classes_may_lie_in_several_datasets(look, folder):
    draw((0,))
    draw((1, 255), root='other')
    assert list(look(two_datasets(Config.fromfile('seg.py')), 'train')) == []


def test_one_of_several_datasets_may_be_black_and_white(folder):
    draw((0, 1))
    draw((0, 255), root='other', number=3)
    (line,) = map(str, image_findings(two_datasets(Config.fromfile('seg.py')), 'train'))
    assert line.startswith(f'warning: {PLACE}: 3 label maps hold only 0 and 255, such as other/')


def test_a_sample_of_a_single_class_is_enlarged(found):
    draw((0, 255), number=120)
    draw((0, 1), number=1)  # the first; the sample takes every second
    assert found(look=few_findings) == []
    draw((0, 255), number=1)
    Image.fromarray(np.resize(np.array([0, 1], np.uint8), (64, 96))).save('seg/labels/119.png')
    assert found(look=few_findings) == []


@pytest.mark.parametrize(
    ('length', 'other', 'number'),
    [
        (40, None, 40),
        (120, 0, 50),  # the first part takes 0, 2, 4, 7, ...
        (120, 1, 85),  # the rest, 70, has two parts
        (120, 3, 120),
        (120, None, 120),
        (5000, 100, 50),  # the first part takes every 100th, each later one its neighbours
        (5000, 105, 100),
        (5000, 195, 1000),
        (5000, None, 1000),
    ],
)
def test_a_sample_grows_until_it_holds_a_second_class(length, other, number):
    asked = []

    def load(index):
        asked.append(index)
        labels = np.full((2, 3), index == other, np.uint8)
        return dict(gt_seg_map=labels, reduce_zero_label=False, seg_map_path='a.png')

    class Dataset:
        metainfo, reduce_zero_label, pipeline = dict(classes=('sky', 'wall')), False, None

        def __len__(self):
            return length

    found = list(sample_findings([(Dataset(), load)], PLACE))
    assert len(asked) == len({*asked}) == number
    assert len(found) == (other is None and number == length)


def test_a_sample_reports_no_class_that_it_lacks(found):
    draw((0, 1), number=60)
    assert found(look=few_findings, metainfo=CLASSES) == []
    assert len(found(metainfo=CLASSES)) == 1


FOREIGN = """
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS


@TRANSFORMS.register_module(force=True)
class WhiteToOne(BaseTransform):
    def transform(self, results):
        results['gt_seg_map'] = results['gt_seg_map'] // 255
        return results
"""


def test_a_transform_of_the_user_may_change_labels(found, monkeypatch):
    Path('white_to_one.py').write_text(FOREIGN)
    monkeypatch.syspath_prepend('.')
    import white_to_one  # noqa: F401

    draw((0, 255))
    kinds = ('LoadImageFromFile', 'LoadAnnotations', 'WhiteToOne', 'PackSegInputs')
    (line,) = found(pipeline=[dict(type=kind) for kind in kinds])
    assert line.startswith(f'warning: {PLACE}: 4 label maps hold only 0 and 255')
    assert line.endswith(' (unless WhiteToOne changes labels)')


@pytest.mark.parametrize('case', ['black and white', 'reduced once too often'])
def test_a_training_is_refused_by_the_line_of_the_check(case, folder, capsys):
    labels, changes, line = WRONG[case]
    draw(labels)
    given = ''.join(f'{key}={value!r}, ' for key, value in changes.items())
    Path('seg.py').write_text(SEGMENTER.replace('img_suffix', f'{given}img_suffix'))
    assert load_tool('check_config').main(['seg.py', '--data']) == 1
    assert capsys.readouterr().out == f'{line}\nseg.py: 1 error, no warning\n'
    assert load_tool('train').main(['seg.py']) == 2
    assert capsys.readouterr().err == f'{line}\n'


def test_entries_that_never_load_are_an_error(found):
    draw((0, 1))
    kinds = ('LoadImageFromFile', 'LoadAnnotations')
    pipeline = [dict(type=kind) for kind in kinds] + [dict(type='PackSegInputs')]
    pipeline[1]['reduce_zero_label'] = True
    (line,) = found(look=few_findings, pipeline=pipeline)
    assert line.startswith(
        f'error: {PLACE}: none of 4 images can be loaded with its label map, the first fails with: '
    )
    assert line.endswith('the `reduce_zero_label` is True')


def test_labels_are_counted_before_a_training(folder):
    draw((1,))
    config = Config.fromfile('seg.py')
    config.work_dir = 'work'
    with pytest.raises(ValueError, match="its 4 label maps hold only class 'sky'"):
        prepare(config, ('train',))


THERE = "the folder holds '000.png' and 3 more"


def test_missing_files_are_counted_and_a_training_skips_them(found):
    draw((0, 1))
    Path('seg/list.txt').write_text('000\n001\n9\n')
    assert found(look=few_findings, ann_file='list.txt') == [
        f"warning: {PLACE}: 1 of 3 {what} do not exist, the first is 'seg/{folder}/9.png'; {THERE}"
        '; a training skips these: add or remove them'
        for what, folder in (('images', 'images'), ('label maps', 'labels'))
    ]


NAMED = {
    'a name with its suffix': (
        '000.png',
        {},
        [
            ('images', 'seg/images/000.png.png', "img_suffix='.png'"),
            ('label maps', 'seg/labels/000.png.png', "seg_map_suffix='.png'"),
        ],
    ),
    'another suffix': (
        '000',
        dict(seg_map_suffix='_mask.png'),
        [('label maps', 'seg/labels/000_mask.png', "seg_map_suffix='_mask.png'")],
    ),
    'no suffix': (
        '000',
        dict(img_suffix=''),
        [('images', 'seg/images/000', "img_suffix=''")],
    ),
}


@pytest.mark.parametrize('look', [image_findings, few_findings])
@pytest.mark.parametrize('case', NAMED)
def test_names_that_lead_to_no_file_are_shown_beside_those_there(case, look, found):
    name, changes, parts = NAMED[case]
    draw((0, 1))
    Path('seg/list.txt').write_text(name)
    lines = found(look=look, ann_file='list.txt', **changes)
    assert lines[: len(parts)] == [
        f'error: {PLACE}: 1 of 1 {what} do not exist, the first is {path!r}; {THERE}: add them, or '
        f"correct {suffix} or data_prefix; 'seg/list.txt' lists names without suffix"
        for what, path, suffix in parts
    ]


def test_label_maps_that_no_transform_loads_may_be_missing(found):
    draw((0, 1))
    Path('seg/labels/000.png').unlink()
    pipeline = [dict(type=kind) for kind in ('LoadImageFromFile', 'PackSegInputs')]
    assert found('test', pipeline=pipeline) == []
    assert len(found('test')) == 1  # not also that the pipeline fails on the first image


def test_boxes_without_a_single_image_are_an_error(folder):
    images = [dict(id=n, file_name=f'{n}.png', width=96, height=64) for n in range(120)]
    categories = [dict(id=n, name=name) for n, name in enumerate(('cat', 'dog', 'cow'))]
    content = dict(images=images, annotations=[], categories=categories)
    Path('boxes.json').write_text(json.dumps(content))
    Path('images/train').mkdir(parents=True)
    dataset = build_dataset(Config.fromfile('det.py'), 'train')
    (line,) = map(str, few_findings(dataset, 'train'))
    assert line == (
        f"error: {PLACE}: 60 of 60 images tried do not exist, the first is 'images/0.png'; the "
        "folder holds 'train': add them, or correct data_root and data_prefix"
    )
    Image.new('RGB', (96, 64)).save('images/2.png')
    assert list(few_findings(dataset, 'train')) == []
