"""`--dataset` finds out by itself: YOLO, Pascal VOC and TIFFs of bands, whole and broken."""

import json
import re
import shutil
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import REPOSITORY
from mmengine.config import Config
from mmengine.registry import DATASETS
from own_files import (
    DETECTOR,
    SEGMENTER,
    coco,
    write_bands,
    write_coco,
    write_masks,
    write_tiff,
    write_voc,
    write_yolo,
)
from PIL import Image

from vit_backbones.config.loading import load_config, use_scope
from vit_backbones.own_data import use_own_data
from vit_backbones.own_data.kinds import check_masks, labels_of
from vit_backbones.own_data.masks import read_masks

BOXES = DETECTOR.replace('with_mask=True', 'with_mask=False')


@pytest.fixture
def used(tmp_path, monkeypatch):
    """A config with own data, the line on them and the warnings."""
    monkeypatch.chdir(tmp_path)

    def use(data, text=DETECTOR, **options):
        Path('a.py').write_text(text)
        cfg = load_config('a.py')
        summary, warnings, _ = use_own_data(cfg, data, folder='lists', **options)
        return cfg, summary.split(', ', 1)[0], warnings

    return use


def drawn():
    """Objects of three classes and any place, with triangles for masks; one image has none."""
    random, content = np.random.default_rng(3), coco()
    content['annotations'] = []
    for i in range(24):
        x, y, w, h = random.uniform((0, 0, 4, 4), (40, 40, 24, 24)).tolist()
        content['annotations'].append(
            dict(
                id=i,
                image_id=i % 10,
                category_id=1 + i % 3,
                bbox=[x, y, w, h],
                segmentation=[[x, y, x + w, y, x + w / 2, y + h]],
                area=w * h / 2,
            )
        )
    names = enumerate(('ant', 'bee', 'cat'), 1)
    return content | dict(categories=[dict(id=i, name=name) for i, name in names])


def with_areas_of_boxes(content):
    for each in content['annotations']:
        each['area'] = each['bbox'][2] * each['bbox'][3]
    return content


def written(split):
    """Objects of a list as rows: image, class, box and area, in the order of these."""
    content = json.loads(Path(f'lists/{split}.json').read_text())
    names = {each['id']: each['name'] for each in content['categories']}
    files = {each['id']: each['file_name'] for each in content['images']}
    rows = [
        (files[each['image_id']], names[each['category_id']], [*each['bbox'], each['area']])
        for each in content['annotations']
    ]
    rows.sort()
    return sorted(files.values()), [row[:2] for row in rows], np.array([row[2] for row in rows])


def numbers_taken_out(cfg):
    return json.loads(re.sub(r'/(coco|yolo|voc)/', '/', json.dumps(cfg.to_dict())))


@pytest.mark.parametrize('boxes', [False, True])
def test_yolo_gives_what_coco_gives(boxes, used, tmp_path):
    content = with_areas_of_boxes(drawn()) if boxes else drawn()
    text = BOXES if boxes else DETECTOR
    asked, _, _ = used(write_coco(tmp_path / 'coco/a.json', content), text)
    before = {split: written(split) for split in ('train', 'val')}
    cfg, line, warnings = used(write_yolo(tmp_path / 'yolo', content, boxes=boxes), text)
    assert (line, warnings) == (f'data: {tmp_path}/yolo/data.yaml (YOLO)', [])
    for split, (files, names, numbers) in before.items():
        assert written(split)[:2] == (files, names)
        assert np.abs(written(split)[2] - numbers).max() < 1e-3
    assert numbers_taken_out(cfg) == numbers_taken_out(asked)


@pytest.mark.parametrize('write', [write_voc, partial(write_yolo, boxes=True)])
def test_boxes_alone_have_a_recipe(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = load_config(REPOSITORY / 'configs/vitdet/faster-rcnn_vit-ti_nuclei.py')
    summary, warnings, _ = use_own_data(cfg, write(tmp_path / 'mine'), folder='lists')
    assert '8 images and 8 objects to train on, 3 to validate on' in summary
    assert not warnings
    assert cfg.model.roi_head.bbox_head.num_classes == 2
    assert cfg.val_evaluator.metric == ['bbox']
    use_scope(cfg)
    data = DATASETS.build(cfg.val_dataloader.dataset)
    samples = [data[index]['data_samples'].gt_instances for index in range(len(data))]
    assert [set(sample.keys()) for sample in samples] == [{'bboxes', 'labels'}] * 3


def test_voc_gives_what_coco_gives(used, tmp_path):
    content = with_areas_of_boxes(drawn())
    asked, _, _ = used(write_coco(tmp_path / 'coco/a.json', content), BOXES)
    before = {split: written(split) for split in ('train', 'val')}
    cfg, line, warnings = used(write_voc(tmp_path / 'voc', content, 'images'), BOXES)
    assert (line, warnings) == (f'data: {tmp_path}/voc (Pascal VOC)', [])
    for split, (files, names, numbers) in before.items():
        assert written(split)[:2] == (files, names)
        assert np.abs(written(split)[2] - numbers).max() < 1e-3
    assert numbers_taken_out(cfg) == numbers_taken_out(asked)


def test_polygons_keep_their_points(used, tmp_path):
    content = drawn()
    used(write_yolo(tmp_path / 'yolo', content))
    points = [
        each['segmentation'][0]
        for split in ('train', 'val')
        for each in json.loads(Path(f'lists/{split}.json').read_text())['annotations']
    ]
    given = [each['segmentation'][0] for each in content['annotations']]
    np.testing.assert_allclose(sorted(points), sorted(given), atol=1e-3)


# Layouts of YOLO


def moved(data, split, numbers, images='images/{}', labels='labels/{}'):
    """Move images and labels of these numbers into the folders of a split."""
    for folder, place, end in (('images', images, 'jpg'), ('labels', labels, 'txt')):
        target = data / place.format(split)
        target.mkdir(parents=True, exist_ok=True)
        for i in numbers:
            (data / folder / f'{i:02d}.{end}').rename(target / f'{i:02d}.{end}')


def rewrite(data, **changes):
    content = json.loads((data / 'data.yaml').read_text())
    content = {key: value for key, value in (content | changes).items() if value is not None}
    (data / 'data.yaml').write_text(json.dumps(content))


def counts(data, val_data=None):
    """Images and objects by split, and all warnings."""
    labels = labels_of(Path(data), val_data, None)
    read = {split: each.read() for split, each in labels.items()}
    numbers = {s: (len(e['images']), len(e['annotations'])) for s, e in read.items()}
    return numbers, [line for each in labels.values() for line in each.warnings]


BOTH = {'train': (8, 8), 'val': (3, 2)}  # image 10 has no object


@pytest.mark.parametrize(
    'yaml',
    [
        'path: .\ntrain: images/train\nval: images/val\nnames: [cat, bird]\n',
        'train: images\\train\nval: images\\val\nnames: {0: cat, 1: bird}\nnc: 2\n',
        'train: ../images/train\nval: ../images/val\nnames: {"0": cat, "1": bird}\n',
        'train: train.txt\nval: [val.txt]\nnames:\n  0: cat\n  1: bird\n',
        'path: ../yolo\ntrain: [images/train]\nval: images/val\nnames: [cat, bird]\ntest: none\n',
    ],
)
def test_data_yaml_as_people_write_it(yaml, tmp_path):
    data = write_yolo(tmp_path / 'yolo')
    moved(data, 'train', range(8))
    moved(data, 'val', range(8, 11))
    for split, numbers in (('train', range(8)), ('val', range(8, 11))):
        lines = [f'.\\images\\{split}\\{i:02d}.jpg\n' for i in numbers]
        (data / f'{split}.txt').write_text(''.join(lines))
    (data / 'data.yaml').write_text(yaml)
    assert counts(data) == (BOTH, [])
    assert counts(data / 'data.yaml') == (BOTH, [])


def test_yolo_of_roboflow(tmp_path):
    data = write_yolo(tmp_path / 'yolo', train='../train/images', val='../valid/images')
    moved(data, 'train', range(8), '{}/images', '{}/labels')
    moved(data, 'valid', range(8, 11), '{}/images', '{}/labels')
    assert counts(data) == (BOTH, [])


def test_yolo_without_yaml_and_with_labels_beside_images(tmp_path):
    data = write_yolo(tmp_path / 'a')
    (data / 'data.yaml').unlink()
    (data / 'classes.txt').write_text('cat\nbird\n')
    (data / 'notes.json').write_text('{"categories": [], "info": {}}')  # Label Studio
    assert counts(data) == ({'train': (11, 10)}, [])
    beside = write_yolo(tmp_path / 'b', train='all')
    moved(beside, 'all', range(11), '{}', '{}')
    (beside / 'all/03.txt').rename(beside / 'all/03.TXT')
    (beside / 'all/04.jpg').rename(beside / 'all/04.JPG')
    assert counts(beside) == ({'train': (11, 10)}, [])


def test_a_val_set_of_its_own_is_taken_by_its_val(tmp_path):
    train, val = write_yolo(tmp_path / 'a'), write_yolo(tmp_path / 'b')
    assert counts(train, val)[0] == {'train': (11, 10), 'val': (11, 10)}
    moved(val, 'val', range(8, 11))
    rewrite(val, val='images/val')
    assert counts(train, val)[0] == {'train': (11, 10), 'val': (3, 2)}


def test_what_is_odd_in_yolo_is_a_line(tmp_path):
    data = write_yolo(tmp_path / 'yolo', path='/content/drive', val='images')
    (data / 'labels/04.txt').unlink()
    _, warnings = counts(data)
    bare = '1 of 11 images of {} have no label file (04.jpg): they count as images without objects'
    at = f'{data}/data.yaml: '
    assert warnings == [
        f"{at}path '/content/drive' does not exist, so the file's folder counts",
        at + bare.format('train'),
        at + bare.format('val'),
        f'{at}11 of 11 images to validate on are trained on too',
    ]


def test_mistakes_that_coco_knows_name_files_and_lines(used, tmp_path):
    data = write_yolo(tmp_path / 'yolo', boxes=True)
    (data / 'labels/03.txt').write_text('\n0 0.5 0.5 0.001 0.5\n0 0.5 0.5 0.25 0.5\n')
    _, _, warnings = used(data, BOXES)
    assert warnings == [
        f'{data}/data.yaml: 1 of 11 annotations whose box is narrower than 1 pixel (id '
        f'labels/03.txt:2): mmdet leaves them out; correct their bbox'
    ]


# Layouts of Pascal VOC


def test_voc_with_lists_of_both_splits(tmp_path):
    data = write_voc(tmp_path / 'voc')
    lists = data / 'ImageSets/Main'
    lists.mkdir(parents=True)
    (lists / 'train.txt').write_text(''.join(f'{i:02d}\n' for i in range(8)))
    (lists / 'val.txt').write_text(''.join(f'{i:02d} 1\n' for i in range(8, 11)))
    assert counts(data) == (BOTH, [])
    (lists / 'train.txt').rename(lists / 'trainval.txt')
    assert counts(data) == ({'train': (8, 8)}, [])


@pytest.mark.parametrize('upper', [False, True])
def test_voc_with_folders_of_both_splits_and_images_beside(upper, tmp_path):
    data = write_voc(tmp_path / 'voc')
    for i in range(11):
        target = data / ('train' if i < 8 else 'valid')
        target.mkdir(exist_ok=True)
        ends = ('.XML', '.JPG') if upper else ('.xml', '.jpg')
        for folder, end, new in zip(
            ('Annotations', 'JPEGImages'), ('xml', 'jpg'), ends, strict=True
        ):
            (data / folder / f'{i:02d}.{end}').rename(target / f'{i:02d}{new}')
    assert counts(data) == (BOTH, [])


def test_images_are_found_by_filename_too(tmp_path):
    data = write_voc(tmp_path / 'voc', images='images')
    (data / 'Annotations').rename(tmp_path / 'elsewhere')
    (data / 'Annotations').symlink_to(tmp_path / 'elsewhere')
    path = data / 'Annotations/03.xml'
    path.write_text(path.read_text().replace('03.jpg', 'C:\\mine\\photo.jpg'))
    (data / 'images/03.jpg').rename(data / 'images/photo.jpg')
    (data / 'images/extra.png').write_bytes(b'')
    numbers, (line,) = counts(data)
    assert numbers == {'train': (11, 10)}
    assert line == (
        f'{data}: 1 image without an XML (extra.png) left out: an image without objects needs an '
        f'XML without any'
    )


def test_pixels_of_voc_begin_at_1_unless_one_is_0(tmp_path):
    data = write_voc(tmp_path / 'voc')
    path = data / 'Annotations/03.xml'
    text = path.read_text()
    content = labels_of(data, None, None)['train'].read()
    assert content['annotations'][3]['bbox'] == [10, 10, 30, 20]
    path.write_text(text.replace('<xmin>11<', '<xmin>0<'))
    labels = labels_of(data, None, None)['train']
    assert [labels.read()['annotations'][i]['bbox'] for i in (2, 3)] == [
        [11, 11, 29, 19],
        [0, 11, 40, 19],
    ]
    assert labels.warnings == [
        f'{data}: boxes begin at 0, so xmin, ymin, xmax and ymax count as edges in pixels; Pascal '
        f"VOC's own begin at pixel 1"
    ]


def test_difficult_objects_are_ignored(used, tmp_path):
    data = write_voc(tmp_path / 'voc')
    path = data / 'Annotations/03.xml'
    path.write_text(path.read_text().replace('<difficult>0', '<difficult>1'))
    _, _, warnings = used(data, BOXES)
    assert warnings == [
        f'{data}: 1 of 10 objects are difficult: neither training nor tests count them'
    ]
    objects = json.loads(Path('lists/train.json').read_text())['annotations']
    assert [each['iscrowd'] for each in objects] == [0, 0, 1, 0, 0, 0, 0, 0]


def test_classes_of_voc_are_in_the_order_of_classes_txt(tmp_path):
    data = write_voc(tmp_path / 'voc')
    for names in (["bird's", 'cat'], ['cat', 'dog', "bird's"]):
        content = labels_of(data, None, None)['train'].read()
        assert [each['name'] for each in content['categories']] == names
        (data / 'classes.txt').write_text("cat\ndog\nbird's\n")


# TIFFs of bands


def values(cfg):
    found = cfg.model.data_preprocessor
    return found.mean, found.std, found.bgr_to_rgb, cfg.model.backbone.in_channels


def test_bands_are_measured_on_the_images_to_train_on(used, tmp_path):
    data, arrays = write_bands(tmp_path / 'd')
    cfg, _, warnings = used(data, SEGMENTER)
    pixels = np.concatenate([a.reshape(-1, 4) for i, a in enumerate(arrays) if i % 5])
    pixels = pixels[:, [2, 1, 0, 3]].astype(float)  # as OpenCV reads them
    mean, std, turned, number = values(cfg)
    np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-5)
    np.testing.assert_allclose(std, pixels.std(0), rtol=1e-5)
    assert (turned, number, warnings) == (False, 4, [])
    loader = dict(type='LoadImageFromFile', color_type='unchanged', to_float32=True)
    for split in ('train', 'val', 'test'):
        assert cfg[f'{split}_dataloader'].dataset.pipeline[0] == loader


def test_three_deep_bands_reach_the_weights_as_rgb(used, tmp_path):
    data, arrays = write_bands(tmp_path / 'd', bands=3)
    mean, _, turned, number = values(used(data, SEGMENTER)[0])
    pixels = np.concatenate([a.reshape(-1, 3) for i, a in enumerate(arrays) if i % 5])
    np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-5)
    assert (turned, number) == (True, 3)


def test_moments_hold_far_from_zero(used, tmp_path):
    data, _ = write_bands(tmp_path / 'd', bands=1, photometric=1, numbers=np.float32)
    for i in range(6):
        array = np.float32(1e6) + np.arange(64 * 96, dtype=np.float32).reshape(64, 96, 1) % 2
        write_tiff(data / f'images/{i:02d}.tif', array, photometric=1)
    assert values(used(data, SEGMENTER)[0])[:2] == ([1e6], [0.5])


def test_a_band_of_one_value_and_transforms_of_colours_are_lines(used, tmp_path):
    data, arrays = write_bands(tmp_path / 'd')
    for i, array in enumerate(arrays):
        array[..., 3] = 7
        write_tiff(data / f'images/{i:02d}.tif', array)
    step = "dict(type='PhotoMetricDistortion'), dict(type='RandomCrop'"
    text = SEGMENTER.replace(
        "dict(type='PackSegInputs')", f"{step}, crop_size=8), dict(type='PackSegInputs')", 1
    )
    cfg, _, warnings = used(data, text)
    assert 'PhotoMetricDistortion' in text
    assert 'PhotoMetricDistortion' not in cfg.pretty_text
    assert values(cfg)[1][3] == 1
    assert warnings == [
        f'{data}: band 4 of 4 is 7 in all images to train on, and teaches nothing: write them '
        f'without it',
        'PhotoMetricDistortion is for 8-bit RGB and left out of the pipelines: these are 4 bands '
        'of uint16',
    ]


def test_values_of_nodata_are_a_line(used, tmp_path):
    data, arrays = write_bands(tmp_path / 'd', bands=1, photometric=1, numbers=np.float32)
    arrays[1][:9], arrays[5][0, 0] = -9999, -9999
    for i in (1, 2, 5):  # 5 is held out
        write_tiff(data / f'images/{i:02d}.tif', arrays[i], photometric=1, nodata='-9999')
    assert used(data, SEGMENTER)[2] == [
        f'{data}: 1 of 4 images to train on have pixels of their nodata value, which counts as any '
        f'other: write one near the rest there, and 255 into the mask'
    ]


def test_configs_that_read_bands_by_themselves_stay(used, tmp_path):
    data, _ = write_bands(tmp_path / 'd')
    loader = "type='LoadImageFromFile', color_type='unchanged'"
    cfg, _, warnings = used(data, SEGMENTER.replace("type='LoadImageFromFile'", loader))
    assert cfg.model.data_preprocessor.mean == [127.5] * 3
    assert warnings == []


def test_masks_may_be_tiffs_and_have_capital_suffixes(used, tmp_path):
    for end in ('.tif', '.PNG'):
        data = write_masks(tmp_path / end, labels=(0, 1, 2))
        for path in sorted((data / 'masks').iterdir()):
            Image.open(path).save(data / 'masks' / (path.stem + end))
            path.unlink()
        cfg, _, _ = used(data, SEGMENTER)
        assert cfg.val_dataloader.dataset.seg_map_suffix == end


def test_six_bands_go_through_tifffile(used, tmp_path):
    data, arrays = write_bands(tmp_path / 'd', bands=6, photometric=1)
    try:
        import tifffile  # noqa: F401
    except ImportError:
        with pytest.raises(
            ImportError, match=r'^a TIFF of 6 bands needs tifffile: pip install vit'
        ):
            used(data, SEGMENTER)
        return
    cfg, _, _ = used(data, SEGMENTER)
    pixels = np.concatenate([a.reshape(-1, 6) for i, a in enumerate(arrays) if i % 5])
    np.testing.assert_allclose(values(cfg)[0], pixels.mean(0), rtol=1e-5)
    assert cfg.train_dataloader.dataset.pipeline[0]['imdecode_backend'] == 'tifffile'


# One mistake each


def line(text, name='labels/03.txt'):
    return lambda data: (data / name).write_text(text)


def yaml(text):
    return line(text, 'data.yaml')


def change(**changes):
    return lambda data: rewrite(data, **changes)


def xml(old, new, name='03'):
    def spoil(data):
        path = data / f'Annotations/{name}.xml'
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return spoil


def steps(*spoilers):
    return lambda data: [spoil(data) for spoil in spoilers]


def remove(name):
    return lambda data: (data / name).unlink()


def to_list(content):
    return steps(line(content, 'train.txt'), change(train='train.txt'))


BOMB = (
    '<!DOCTYPE a [<!ENTITY b "lol">'
    + ''.join(f'<!ENTITY b{i} "{"&b;" * 10 if i == 0 else f"&b{i - 1};" * 10}">' for i in range(9))
    + ']><annotation>&b8;</annotation>'
)
HOSTS = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hosts">]><annotation>&b;</annotation>'
NAMES = dict(names=['a', 'b'], train='images')
YOLO = {
    'two kinds': (
        lambda data: write_coco(data / 'train.json'),
        r"'.*yolo' holds 2 kinds of data, YOLO \(data.yaml\) and COCO \(train.json\): name the one",
    ),
    'yolo and voc': (
        lambda data: (data / 'labels/03.xml').write_text('<annotation/>'),
        r'holds 2 kinds of data, YOLO \(data.yaml\) and Pascal VOC \(labels/03.xml\): name the one',
    ),
    'a lone COCO file': (
        lambda data: (data / 'mine.json').write_text(json.dumps(coco())),
        r'holds 2 kinds of data, YOLO \(data.yaml\) and COCO \(mine.json\)',
    ),
    'two yaml': (line('names: [a]', 'dataset.yaml'), r'has 2 files of YOLO \(data.yaml, dataset.y'),
    'no image': (remove('images/03.jpg'), r'1 label file of .*labels. without an image .*\(03.txt'),
    'no labels': (lambda data: shutil.rmtree(data / 'labels'), 'none of the 11 images .* to train'),
    'nc': (change(nc=3), 'nc is 3, and names has 2: correct one'),
    'nc of text': (change(nc='two'), "nc is 'two', and names has 2"),
    'a number twice': (yaml('names: {0: a, "0": b}\ntrain: images'), 'names has one number twice,'),
    'class beyond': (line('0 .5 .5 .1 .1\n2 .5 .5 .1 .1'), '/03.txt:2: class 2 is none of the 2 n'),
    'class below': (line('-1 .5 .5 .1 .1'), '/03.txt:1: class -1 is none of the 2 names .*, 0 to '),
    'half a class': (line('0.5 .5 .5 .1 .1'), '/03.txt:1: class 0.5 is none of'),
    'class by name': (line('cat .5 .5 .1 .1'), "/03.txt:1: 'cat .5 .5 .1 .1' are no numbers with "),
    'commas': (line('0,.5,.5,.1,.1'), "/03.txt:1: '0,.5,.5,.1,.1' are no numbers with spaces"),
    'pixels': (line('0 .5 .5 .1 .1\n\n0 48 32 10 10'), '/03.txt:3: 48 is outside 0-1: divide x by'),
    'negative': (line('0 .5 .5 -.1 .1'), '/03.txt:1: -0.1 is outside 0-1'),
    'a little outside': (line('0 .1 .1 1.01 .5 .5 .5'), '/03.txt:1: 1.01 is outside 0-1'),
    'nan': (line('0 nan .5 .1 .1'), '/03.txt:1: nan is outside 0-1'),
    'four values': (line('0 .5 .5 .1'), '/03.txt:1: 4 values; a box has 5'),
    'a score': (line('0 .5 .5 .1 .1 .9'), '/03.txt:1: 6 values; a box has 5'),
    'half a point': (line('0 .1 .1 .2 .2 .3 .3 .4'), '/03.txt:1: 8 values; .* a polygon its class'),
    'one value': (line('0'), '/03.txt:1: 1 value; a box has 5'),
    'no text': (lambda data: (data / 'labels/03.txt').write_bytes(b'\xff\xfe0'), 'is no text in U'),
    'no yaml': (yaml('names: [a\ntrain: b'), r"data.yaml:2' cannot be read as YAML \("),
    'deep yaml': (yaml('[' * 600), 'cannot be read as YAML'),
    'code in yaml': (yaml('names: !!python/object/apply:os.getcwd []'), 'cannot be read as YAML'),
    'list': (yaml('- a'), 'is no data.yaml: write names: '),
    'no names': (change(names=None), 'has no list of names: write one per class'),
    'one name': (change(names='cat'), 'has no list of names'),
    'names the other way': (change(names={'cat': 0, 'dog': 1}), "names has 'cat' for a number of "),
    'a name of no': (yaml('names: [yes, no]\ntrain: images'), r'class 0 has no text .*\(a bool\):'),
    'nested names': (change(names=[['a', 'b']]), r'class 0 has no text for a name \(a list\)'),
    'keypoints': (change(kpt_shape=[17, 3]), 'has kpt_shape: its labels are keypoints'),
    'no train': (change(train=None, val='images'), 'names no images to train on: write train: '),
    'train elsewhere': (change(train='none'), "train is 'none', which is not in .*: correct path "),
    'val elsewhere': (change(val='D:\\val'), r"val is 'D:\\\\val', which is not in"),
    'a tab of Windows': (
        yaml('train: "images\\train"\nnames: [a, b]'),
        r"train is 'images\\train', which is not in .*, with / between folders",
    ),
    'train is a number': (change(train=3), 'train is a int: write a path as text'),
    'train is a json': (
        steps(line('[]', 'x.json'), change(train='x.json')),
        'x.json. is no folder of images, and no .txt with one per line',
    ),
    'an empty folder': (
        steps(lambda data: (data / 'empty').mkdir(), change(train='empty')),
        'empty: no images in this folder',
    ),
    'a list of missing ones': (to_list('images/03.jpg\nimages/x.jpg'), "1 of 2 images .* is 'imag"),
    'an empty list': (to_list('\n'), 'train.txt. lists no images: write one per line'),
    'a list of labels': (to_list('labels/03.txt'), "lists 'labels/03.txt', which is no image"),
    'a broken image': (line('', 'images/03.jpg'), '1 of 11 images of .* cannot be read, the first'),
    'no classes': (remove('data.yaml'), 'has labels of YOLO and no names of classes: write names:'),
    'one label file': (None, 'are the labels of one image, or a list: name the folder of all'),
}  # fmt: skip
VOC = {
    'empty': (line('', 'Annotations/03.xml'), '03.xml. is empty: write its XML, or remove it and'),
    'half': (xml('</annotation>', ''), r"03.xml:1' cannot be read as XML \(no element found\)"),
    'laughs': (line(BOMB, 'Annotations/03.xml'), "it declares the entity 'b', which labels have n"),
    'laughs in UTF-16': (
        lambda data: (data / 'Annotations/03.xml').write_bytes(BOMB.encode('utf-16')),
        "it declares the entity 'b'",
    ),
    'a file': (line(HOSTS, 'Annotations/03.xml'), "it declares the entity 'b', which labels have "),
    'another root': (xml('annotation>', 'annotations>'), 'it begins with <annotations>, not <anno'),
    'no bndbox': (xml('bndbox', 'polygon'), "03.xml.: object 1, 'cat', has no bndbox: write its"),
    'no name': (xml('<name>cat</name>', ''), '03.xml.: object 1 has no name: write its class'),
    'a blank name': (xml('>cat<', '> <'), '03.xml.: object 1 has no name'),
    'no corner': (xml('<xmax>40</xmax>', ''), '03.xml.: object 1 has no xmax: write a number of p'),
    'a corner of text': (xml('>40<', '>forty<'), "03.xml.: object 1 has 'forty' for xmax"),
    'an infinite corner': (xml('>40<', '>inf<'), "03.xml.: object 1 has 'inf' for xmax"),
    'corners exchanged': (xml('>40<', '>4<'), r'has a bndbox from \(11, 11\) to \(4, 30\): xmin a'),
    'another size': (xml('>96<', '>97<'), r'1 of 11 images .* another size .* is 96x64, not 97x64'),
    'turned': (
        steps(xml('>96<', '>a<'), xml('>64<', '>96<'), xml('>a<', '>64<')),
        '96x64, not 64x96; a photo is shown as its EXIF orientation turns it',
    ),
    'a size of text': (xml('>96<', '>wide<'), "03.xml.: size has 'wide' for width"),
    'no image': (remove('JPEGImages/03.jpg'), r'1 of 11 XML .* no image of their name, nor .*03.x'),
    'two images': (
        lambda data: [
            shutil.copy(data / 'JPEGImages/03.jpg', data / f'JPEGImages/03.{end}')
            for end in ('png', 'bmp')
        ]
        + [(data / 'JPEGImages/03.jpg').unlink()],
        r'has several images \(03.bmp, 03.png\), and its filename is none of them: keep one',
    ),
    'a broken image': (
        steps(line('', 'JPEGImages/03.jpg'), xml('<width>96</width>', '<width>0</width>')),
        '1 of 1 image of .* cannot be read, the first is',
    ),
    'classes.txt': (line('dog\ncat', 'classes.txt'), "an object \"bird's\", which is none of the "),
    'list of others': (
        lambda data: write_list(data, 'train', '00\n77\n'),
        r'1 of 2 names in .*train.txt. have no XML \(77\)',
    ),
    'an empty list': (lambda data: write_list(data, 'train', ''), 'train.txt. lists no images'),
    'val only': (
        lambda data: (data / 'Annotations').rename(data / 'val'),
        'has XML of val or test, and none to train on',
    ),
    'one XML': (None, 'are the labels of one image, or a list: name the folder of all'),
}  # fmt: skip


def write_list(data, name, content):
    (data / 'ImageSets/Main').mkdir(parents=True)
    (data / f'ImageSets/Main/{name}.txt').write_text(content)


@pytest.mark.parametrize('mistake', [*YOLO, *(f'voc: {name}' for name in VOC)])
def test_a_mistake_in_labels_is_one_line(mistake, tmp_path):
    if mistake.startswith('voc: '):
        spoil, message = VOC[mistake.removeprefix('voc: ')]
        data, single = write_voc(tmp_path / 'voc'), 'Annotations/03.xml'
    else:
        spoil, message = YOLO[mistake]
        data, single = write_yolo(tmp_path / 'yolo', boxes=True), 'labels/03.txt'
    if spoil is None:
        data /= single
    else:
        spoil(data)
    with pytest.raises((OSError, ValueError), match=message) as raised:
        labels_of(data, None, None)
    assert str(raised.value).isprintable()


def band_file(write):
    return lambda data: write(data / 'images/03.tif')


RANDOM = np.random.default_rng(1)
DEEP = RANDOM.integers(0, 9000, (64, 96, 4)).astype(np.uint16)
BANDS = {
    'three bands': (
        band_file(lambda path: write_tiff(path, DEEP[..., :3])),
        r'differ: 5 of 4 bands of uint16, 1 of 3 bands of uint16 \(.*03.tif\): write them alike',
    ),
    'floats': (
        band_file(lambda path: write_tiff(path, DEEP.astype(np.float32))),
        'differ: 5 of 4 bands of uint16, 1 of 4 bands of float32',
    ),
    'a picture': (
        band_file(lambda path: write_tiff(path, DEEP[..., :3].astype(np.uint8))),
        'differ: 5 of 4 bands of uint16, 1 of 8-bit RGB or grey',
    ),
    'pages': (
        lambda data: [
            cv2.imwritemulti(str(path), [DEEP[..., 0], DEEP[..., 1]])
            for path in (data / 'images').iterdir()
        ],
        '01.tif. has 2 pages, and only the first would be read: write its bands into one page',
    ),
    'planar': (
        lambda data: [write_tiff(path, DEEP, planar=True) for path in (data / 'images').iterdir()],
        'holds its 4 bands one behind the other: write them pixel by pixel',
    ),
    'nan': (
        lambda data: [
            write_tiff(path, np.where(DEEP > 8990, np.nan, 1).astype(np.float32))
            for path in (data / 'images').iterdir()
        ],
        '01.tif. holds NaN or infinity in .* pixels of a band: write numbers there, and 255 into t',
    ),
    'no header': (band_file(lambda path: path.write_bytes(b'II*\0')), '03.tif. cannot be read'),
    'cut': (
        band_file(lambda path: path.write_bytes(path.read_bytes()[:9000])),
        '03.tif. cannot be read',
    ),
    'another size': (
        band_file(lambda path: write_tiff(path, DEEP[:32])),
        'mask .*03.png. has 96x64 pixels, its image 96x32: make them equal',
    ),
    'masks twice': (
        lambda data: shutil.copytree(data / 'masks', data / 'labels'),
        'holds 2 kinds of masks, in masks and labels: keep one of these folders',
    ),
    'yolo': (
        lambda data: [(data / 'masks').rename(data / 'x'), rewrite_as_yolo(data)],
        r"is YOLO \(data.yaml\), objects for mmdet's configs, such as those of configs/vitdet",
    ),
    'voc': (
        lambda data: [shutil.rmtree(data), write_voc(data)],
        r"is Pascal VOC \(Annotations/00.xml\), objects for mmdet's configs",
    ),
    'coco': (
        lambda data: [shutil.rmtree(data / 'masks'), write_coco(data / 'train.json')],
        r"is COCO \(train.json\), objects for mmdet's configs",
    ),
}


def rewrite_as_yolo(data):
    (data / 'data.yaml').write_text(json.dumps(NAMES))


def read_bands(data):
    check_masks(data)
    return read_masks(data, None, folder=data)


@pytest.mark.parametrize('mistake', BANDS)
def test_a_mistake_in_bands_is_one_line(mistake, tmp_path):
    data, _ = write_bands(tmp_path / 'd')
    spoil, message = BANDS[mistake]
    spoil(data)
    with pytest.raises((OSError, ValueError), match=message) as raised:
        read_bands(data)
    assert str(raised.value).isprintable()


def test_boxes_are_too_little_for_a_config_of_masks(used, tmp_path):
    data = write_yolo(tmp_path / 'yolo', boxes=True)
    message = (
        r"data.yaml': 10 of 10 annotations without segmentation \(id labels/00.txt:1, .*\): the "
        r'config learns masks; draw them, or take a config for boxes, '
        r'such as configs/vitdet/faster-rcnn_vit-ti_nuclei.py'
    )
    with pytest.raises(ValueError, match=message):
        used(data)
    assert not Path('lists').exists()


def test_train_and_val_data_are_of_one_format(used, tmp_path):
    val = write_voc(tmp_path / 'voc')
    with pytest.raises(
        ValueError, match=r'yolo. is YOLO, and .*voc. is Pascal VOC: give both in o'
    ):
        used(write_yolo(tmp_path / 'yolo'), val_data=val)
    with pytest.raises(ValueError, match=r'images=... is for COCO files, and .*voc. is Pascal VOC'):
        used(val, BOXES, images=tmp_path)


# Through the tool


@pytest.mark.slow
def test_train_on_yolo(train, tmp_path, capsys):
    Path('mine.py').write_text(DETECTOR)
    data = write_yolo(tmp_path / 'yolo')
    before = {path: path.read_bytes() for path in data.rglob('*') if path.is_file()}
    few = ['model.train_cfg.rpn_proposal.max_per_img=20', 'model.test_cfg.rpn.max_per_img=20']
    few += ['model.train_cfg.rcnn.sampler.num=16']
    assert (
        train(['mine.py', '--dataset', str(data), '--no-sanity-check', '--cfg-options', *few]) == 0
    )
    assert 'data.yaml (YOLO), 8 images and 8 objects to train on, 3 to' in capsys.readouterr().out
    assert {path: path.read_bytes() for path in data.rglob('*') if path.is_file()} == before
    dumped = Config.fromfile('work_dirs/mine/mine.py')
    assert (
        dumped.train_dataloader.dataset.ann_file == f'{tmp_path}/work_dirs/mine/dataset/train.json'
    )


def test_check_and_train_on_bands(check, train, tmp_path, capsys):
    Path('mine.py').write_text(SEGMENTER)
    data, _ = write_bands(tmp_path / 'd')
    code, lines = check('mine.py', flags=['--dataset', str(data), '--data'], missing=True)
    assert (code, lines[1:]) == (0, ['mine.py: no error, no warning'])
    assert lines[0].endswith('3 classes: class_0, class_1, class_2; 4 bands of uint16')
    options = ['--cfg-options', 'train_cfg.max_epochs=1']
    assert train(['mine.py', '--dataset', str(data), *options]) == 0
    dumped = Config.fromfile('work_dirs/mine/mine.py').model
    assert dumped.backbone.in_channels == len(dumped.data_preprocessor.mean) == 4


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (line('0 .5 .5 .1 .1\n9 .5 .5 .1 .1'), r'error: .*/labels/03.txt:2: class 9 is none of '),
        (lambda data: write_coco(data / 'train.json'), 'error: .* holds 2 kinds of data, YOLO'),
    ],
)
def test_mistakes_leave_nothing_behind(spoil, message, train, tmp_path, capsys):
    Path('mine.py').write_text(DETECTOR)
    data = write_yolo(tmp_path / 'yolo')
    spoil(data)
    assert train(['mine.py', '--dataset', str(data)]) == 2
    assert re.fullmatch(f'{message}.*\n', capsys.readouterr().err)
    assert not Path('work_dirs').exists()
