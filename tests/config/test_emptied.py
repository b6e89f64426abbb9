"""Datasets without an image: what they looked for, and what is there."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from checked_configs import SEGMENTER, write_segments
from conftest import load_tool
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from vit_backbones.checks.data import start_findings
from vit_backbones.config.datasets import build_dataset, dataset_images


def write_boxes(*, images=3, size=(96, 64), names=('cat', 'dog', 'cow'), category=1):
    """A COCO file with a box in each image."""
    Path('images').mkdir(exist_ok=True)
    listed = []
    for index in range(images):
        cv2.imwrite(f'images/{index}.png', np.zeros((size[1], size[0], 3), np.uint8))
        listed.append(dict(id=index, file_name=f'{index}.png', width=size[0], height=size[1]))
    box = dict(bbox=[4, 4, 20, 20], area=400, iscrowd=0, category_id=category)
    box |= dict(segmentation=[[4, 4, 24, 4, 24, 24]])
    content = dict(
        images=listed,
        annotations=[dict(box, id=each['id'], image_id=each['id']) for each in listed],
        categories=[dict(id=number, name=name) for number, name in enumerate(names, 1)],
    )
    Path('boxes.json').write_text(json.dumps(content))


@pytest.fixture
def why(folder):
    """The line on a training dataset of a config with changes."""

    def ask(name, **changes):
        config = Config.fromfile(name)
        config.train_dataloader.dataset.update(changes)
        place = f'train_dataloader.dataset of {config.filename}: '
        with pytest.raises(ValueError, match=place) as raised:
            build_dataset(config, 'train')
        return str(raised.value).removeprefix(place)

    return ask


FEW = dict(filter_cfg=dict(filter_empty_gt=True, min_size=32))


@pytest.mark.parametrize('suffix', ['.jpg', '.PNG', '_rgb.png'])
def test_suffixes_that_there_are_stand_beside_the_one_sought(suffix, why):
    write_segments(1)
    Path('seg/images/b.txt').write_text('')
    assert why('seg.py', img_suffix=suffix) == (
        f"BaseSegDataset has no image: no file in 'seg/images' ends in {suffix!r} (img_suffix), "
        "and it holds 1 .png, 1 .txt, such as 'a.png': set img_suffix='.png', or data_prefix to "
        'another folder'
    )


def test_a_folder_may_hold_nothing(why):
    write_segments(1)
    Path('seg/images/a.png').unlink()
    assert why('seg.py') == (
        "BaseSegDataset has no image: no file in 'seg/images' ends in '.png' (img_suffix), nor in "
        'anything else: set data_root and data_prefix to your images'
    )


def test_a_list_may_hold_nothing(why):
    write_segments(1)
    Path('seg/list.txt').write_text('')
    line = "has no image: ann_file='seg/list.txt' lists none: fill it, or set another"
    assert why('seg.py', ann_file='list.txt') == f'BaseSegDataset {line}'


def test_a_coco_file_may_list_no_image(why):
    write_boxes(images=0)
    line = "has no image: ann_file='boxes.json' lists none: fill it, or set another"
    assert why('det.py') == f'CocoDataset {line}'


def test_no_class_may_be_a_category(why):
    write_boxes(names=('Cat', 'Dog', 'a', 'b', 'c', 'd'))
    assert why('det.py', **FEW) == (
        "CocoDataset has no image: the categories of 'boxes.json' are Cat, Dog, a, b, c, ..., and "
        'metainfo.classes is cat, dog, cow: spell them alike'
    )


def test_no_image_may_have_an_object(why):
    write_boxes(category=9)
    assert why('det.py', **FEW) == (
        'CocoDataset has no image: filter_cfg.filter_empty_gt=True, and the 3 images of '
        "'boxes.json' have no object of the classes cat, dog, cow with an area: correct the "
        'annotations or the classes, or set it to False'
    )


def test_all_images_may_be_too_small(why):
    write_boxes(size=(96, 20))
    assert why('det.py', **FEW) == (
        'CocoDataset has no image: filter_cfg.min_size=32, and the shorter sides of the 3 images '
        "of 'boxes.json' are at most 20 pixels: lower it"
    )


def test_a_single_image_takes_a_singular_verb(why):
    write_boxes(images=1, category=9)
    assert "and the 1 image of 'boxes.json' has no object of the classes" in why('det.py', **FEW)
    write_boxes(images=1, size=(96, 20))
    line = "and the shorter side of the 1 image of 'boxes.json' is at most 20 pixels: lower it"
    assert line in why('det.py', **FEW)


@pytest.mark.parametrize('indices', [0, []])
def test_indices_may_keep_none(indices, why):
    write_boxes()
    line = f'CocoDataset has no image: indices={indices} keeps none of 3'
    assert why('det.py', indices=indices, **FEW) == line
    write_segments(1)
    line = f'BaseSegDataset has no image: indices={indices} keeps none of 1'
    assert why('seg.py', indices=indices) == line


def test_one_of_several_is_named_by_its_own_folder(folder):
    write_segments(1)
    config = Config.fromfile('seg.py')
    first = config.train_dataloader.dataset
    second = first | dict(img_suffix='.bmp')
    config.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[first, second])
    with pytest.raises(ValueError, match=r"no file in 'seg/images' ends in '.bmp'"):
        build_dataset(config, 'train')
    for each in (first, second):
        each.serialize_data = False
    (line,) = map(str, start_findings(build_dataset(config, 'train'), 'train'))
    assert line.startswith(
        "error: train_dataloader.dataset: BaseSegDataset has no image: no file in 'seg/images' ends"
    )


LINE = (
    "BaseSegDataset has no image: no file in 'seg/images' ends in '.tif' (img_suffix), and it "
    "holds 1 .png, such as 'a.png': set img_suffix='.png', or data_prefix to another folder"
)


@pytest.mark.parametrize('lazily', ['', 'lazy_init=True, ', 'serialize_data=False, '])
def test_every_tool_has_the_same_line(lazily, folder, capsys):
    write_segments(1)
    suffix = "img_suffix='.png', seg"
    text = SEGMENTER.replace(suffix, f"{lazily}img_suffix='.tif', seg")
    Path('seg.py').write_text(text)
    Path('test.py').write_text(
        f'{text}test_dataloader = train_dataloader\ntest_cfg = dict()\n'
        "test_evaluator = dict(type='IoUMetric')\n"
    )
    init_default_scope('mmseg')
    model = MODELS.build(Config.fromfile('seg.py').model)
    torch.save(dict(state_dict=model.state_dict()), 'a.pth')
    assert load_tool('test').main(['test.py', 'a.pth']) == 2
    assert LINE in capsys.readouterr().err
    assert load_tool('train').main(['seg.py']) == 2
    assert LINE in capsys.readouterr().err
    assert load_tool('check_config').main(['seg.py', '--data']) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f'error: train_dataloader.dataset: {LINE}', 'seg.py: 1 error, no warning']
    with pytest.raises(ValueError, match='BaseSegDataset has no image: no file in') as raised:
        dataset_images('seg.py', [], 'train')
    assert str(raised.value) == f'train_dataloader.dataset of seg.py: {LINE}'


def test_other_errors_keep_their_text(why):
    write_boxes()
    assert why('det.py', type='NoDataset').startswith("'NoDataset' is not in the mmdet::dataset")
    assert why('det.py', pipeline=[3]).startswith('transform must be a callable object')
