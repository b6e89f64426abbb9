"""The data of EoMT's recipes: sizes, scales and padding as its authors have them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.registry import init_default_scope
from mmengine.utils import import_modules_from_strings
from torchvision.transforms.v2 import functional as tv

import vit_backbones  # noqa: F401  (registers the transforms)
from vit_backbones.config.loading import load_config

DATASETS = Path(__file__).resolve().parents[1] / 'configs/_base_/datasets'
SIDE = 64
OBJECTS = ('gt_masks', 'gt_bboxes', 'gt_bboxes_labels', 'gt_ignore_flags')


@pytest.fixture
def pipelines(monkeypatch):
    """Pipelines of a file for crops of `SIDE`, without what loads."""

    def read(name):
        monkeypatch.setenv('EOMT_SIZE', str(SIDE))
        config = load_config(DATASETS / f'eomt_{name}.py')
        scope = 'mmdet' if name.startswith('coco') else 'mmseg'
        import_modules_from_strings([f'{scope}.datasets.transforms'])
        init_default_scope(scope)
        assert config.crop_size == (SIDE, SIDE)
        return [
            Compose([each for each in pipeline if not each.type.startswith('Load')])
            for pipeline in (config.train_pipeline, config.test_pipeline)
        ]

    return read


def loaded(height, width, objects=True):
    """An image as it is loaded, all of which is one object and one class."""
    generator = np.random.default_rng(0)
    results = dict(
        img=generator.integers(1, 256, (height, width, 3), np.uint8),
        img_path='a.png',
        img_id=0,
        img_shape=(height, width),
        ori_shape=(height, width),
        gt_masks=BitmapMasks(np.ones((1, height, width), np.uint8), height, width),
        gt_bboxes=HorizontalBoxes(torch.tensor([[0.0, 0.0, width, height]])),
        gt_bboxes_labels=np.array([0]),
        gt_ignore_flags=np.array([False]),
        gt_seg_map=np.zeros((height, width), np.uint8),
        seg_fields=['gt_seg_map'],
    )
    return {key: results[key] for key in results if objects or key not in OBJECTS}


@pytest.mark.parametrize(
    ('name', 'least'),
    [('coco-panoptic', 0.1), ('coco-instance', 0.1), ('ade20k', 0.5), ('cityscapes', 0.5)],
)
def test_the_long_side_of_images_is_that_of_crops_times_a_factor(name, least, pipelines):
    """Factors below 1 show: what lies outside of the image is black, and no object or class."""
    train, _ = pipelines(name)
    np.random.seed(0)
    factors = []
    for _ in range(60):
        found = train(loaded(60, 90, name.startswith('coco')))
        assert found['inputs'].shape == (3, SIDE, SIDE)
        sample = found['data_samples']
        if name.startswith('coco'):
            inside = torch.from_numpy(sample.gt_instances.masks.masks[0]).bool()
        else:
            inside = sample.gt_sem_seg.data[0] != 255
        rows, columns = (int(inside.any(1 - axis).sum()) for axis in (0, 1))
        assert inside.sum() == rows * columns
        assert (found['inputs'][:, ~inside] == 0).all()
        assert inside[:rows, :columns].all()  # padded below and right
        factors.append(columns / SIDE)
    assert least <= min(factors) + 1 / SIDE < least + 0.1
    assert max(factors) == 1.0


@pytest.mark.parametrize('name', ['coco-panoptic', 'coco-instance'])
def test_tests_see_whole_images_padded_with_black(name, pipelines):
    _, test = pipelines(name)
    found = test(loaded(60, 90))
    assert found['inputs'].shape == (3, SIDE, SIDE)
    assert found['data_samples'].img_shape == (43, SIDE)
    assert (found['inputs'][:, 43:] == 0).all()
    assert found['inputs'][:, 42].min() > 0


@pytest.mark.parametrize('name', ['ade20k', 'cityscapes'])
@pytest.mark.parametrize('shape', [(60, 90), (90, 60), (20, 190)])
def test_tests_of_classes_have_the_short_side_of_a_window(name, shape, pipelines):
    _, test = pipelines(name)
    height, width = test(loaded(*shape, objects=False))['inputs'].shape[-2:]
    assert min(height, width) == SIDE
    assert max(height, width) == pytest.approx(SIDE * max(shape) / min(shape), abs=1)


def test_images_are_resized_as_in_the_release(pipelines):
    """By torchvision there, with antialiasing; cv2's bilinear resizing has none."""
    _, test = pipelines('coco-instance')
    given = loaded(120, 180)
    found = test(dict(given))['inputs'][:, :43]
    pixels = torch.from_numpy(given['img']).permute(2, 0, 1)
    expected = tv.resize(pixels, [43, SIDE], antialias=True)
    assert (found.int() - expected.int()).abs().max() <= 1
    plain = tv.resize(pixels, [43, SIDE], antialias=False)
    assert (plain.int() - expected.int()).abs().max() > 20
