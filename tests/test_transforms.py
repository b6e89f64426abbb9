"""Transforms of EoMT's training: black padding, and crops that show something."""

import numpy as np
import pytest
import torch
from mmcv.transforms import TRANSFORMS
from mmdet.models import DetDataPreprocessor
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.registry import init_default_scope
from mmengine.utils import import_modules_from_strings

import vit_backbones.mmdet  # noqa: F401  (registers all of mmdet)

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


@pytest.fixture(autouse=True)
def _scope():
    import_modules_from_strings(['mmdet.datasets.transforms', 'mmdet.models'])
    init_default_scope('mmdet')


def build(kind, **options):
    return TRANSFORMS.build(dict(type=kind, **options))


def sample(height=40, width=60):
    """A grey image with an object of 8x8 pixels in the corner below right, and its class."""
    mask = np.zeros((1, height, width), np.uint8)
    mask[0, -8:, -8:] = 1
    return dict(
        img=np.full((height, width, 3), 100, np.uint8),
        img_shape=(height, width),
        ori_shape=(height, width),
        gt_masks=BitmapMasks(mask, height, width),
        gt_bboxes=HorizontalBoxes(torch.tensor([[width - 8.0, height - 8.0, width, height]])),
        gt_bboxes_labels=np.array([0]),
        gt_ignore_flags=np.array([False]),
    )


def packed(results):
    return build('PackDetInputs', meta_keys=('img_shape', 'ori_shape')).transform(results)


def batch_of(results, **options):
    """What the model gets."""
    item = packed(results)
    data = dict(inputs=[item['inputs']], data_samples=[item['data_samples']])
    return DetDataPreprocessor(mean=MEAN, std=STD, pad_mask=True, **options)(data, training=True)


def test_padding_is_black_before_it_is_normalised():
    batch = batch_of(build('PadWithBlack', size=64).transform(sample()))
    black = (torch.zeros(3) - torch.tensor(MEAN)) / torch.tensor(STD)
    assert batch['inputs'].shape == (1, 3, 64, 64)
    expected = black[:, None, None].expand(3, 64, 64)
    assert torch.allclose(batch['inputs'][0, :, 40:], expected[:, 40:])
    assert torch.allclose(batch['inputs'][0, :, :, 60:], expected[:, :, 60:])


def test_the_padding_of_a_data_preprocessor_is_the_mean_colour():
    """The trap: the released recipes pad the pixels of the file."""
    batch = batch_of(sample(), pad_size_divisor=64)
    assert torch.equal(batch['inputs'][0, :, 40:], torch.zeros(3, 24, 64))


def test_padding_is_no_part_of_the_image_nor_of_its_objects():
    results = build('PadWithBlack', size=(48, 64)).transform(sample())
    assert results['img'].shape == (48, 64, 3)
    assert results['img_shape'] == (40, 60)
    assert results['gt_masks'].masks.sum() == 64
    assert results['gt_masks'].masks.shape == (1, 48, 64)


def test_a_map_of_classes_is_padded_with_255():
    results = dict(sample(), gt_seg_map=np.zeros((40, 60), np.uint8))
    found = build('PadWithBlack', size=(48, 60)).transform(results)['gt_seg_map']
    assert found.shape == (48, 60)
    assert np.unique(found[:40]) == 0
    assert np.unique(found[40:]) == 255


def test_a_larger_image_is_not_padded():
    results = build('PadWithBlack', size=(32, 64)).transform(sample())
    assert results['img'].shape == (40, 64, 3)


CROP = [dict(type='RandomCrop', crop_size=(20, 20), allow_negative_crop=True)]


def test_crops_are_drawn_until_they_show_an_object():
    np.random.seed(0)
    until = build('UntilObjects', transforms=CROP, tries=1000)
    areas = [until.transform(sample())['gt_masks'].areas.sum() for _ in range(50)]
    assert min(areas) > 0
    np.random.seed(0)
    once = build('UntilObjects', transforms=CROP, tries=1)
    shown = [len(once.transform(sample())['gt_masks']) for _ in range(50)]
    assert 0 < sum(shown) < 25


def test_an_image_without_objects_gives_its_last_crop():
    results = sample()
    results['gt_ignore_flags'][:] = True  # a crowd
    until, tried = build('UntilObjects', transforms=CROP, tries=3), []
    assert until.transform(results)['img'].shape == (20, 20, 3)
    until.transforms = lambda each: tried.append(each) or each
    assert until.transform(results) is tried[2]


def test_one_draw_does_not_change_the_next():
    results = sample()
    build('UntilObjects', transforms=CROP, tries=5).transform(results)
    assert results['gt_bboxes'].tensor.tolist() == [[52.0, 32.0, 60.0, 40.0]]
    assert results['img'].shape == (40, 60, 3)


@pytest.mark.parametrize('label', [0, 254])
def test_a_class_of_a_map_is_an_object(label):
    init_default_scope('mmseg')
    import_modules_from_strings(['mmseg.datasets.transforms'])
    classes = np.full((40, 60), 255, np.uint8)
    classes[-8:, -8:] = label
    results = dict(img=np.zeros((40, 60, 3), np.uint8), gt_seg_map=classes)
    results['seg_fields'] = ['gt_seg_map']
    np.random.seed(0)
    crop = [dict(type='RandomCrop', crop_size=(20, 20))]
    until = build('UntilObjects', transforms=crop, tries=1000)
    assert all((until.transform(results)['gt_seg_map'] == label).any() for _ in range(20))


def test_what_gives_none_is_tried_again():
    np.random.seed(0)
    crop = [dict(type='RandomCrop', crop_size=(20, 20), allow_negative_crop=False)]
    until = build('UntilObjects', transforms=crop, tries=1000)
    assert all(until.transform(sample()) is not None for _ in range(20))
