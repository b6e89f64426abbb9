"""Ground truth of the batched heads, beside that of mmdet's and mmseg's heads."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mask2former_heads import head_config
from mmdet.models.dense_heads import Mask2FormerHead
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData
from mmengine.utils import import_modules_from_strings
from mmseg.models.decode_heads.mask2former_head import Mask2FormerHead as SegMask2FormerHead
from mmseg.structures import SegDataSample

from vit_backbones.benchmark.counting import counted
from vit_backbones.config.loading import load_config
from vit_backbones.heads.batched_mask2former import BatchedMask2FormerHead
from vit_backbones.heads.batched_seg_mask2former import BatchedSegMask2FormerHead

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
SIZE = (16, 24)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def things(*counts, size=SIZE):
    random = np.random.default_rng(0)
    return [
        InstanceData(
            labels=torch.randint(2, (n,)),
            masks=BitmapMasks(random.integers(0, 2, (n, *size), np.uint8), *size),
        )
        for n in counts
    ]


def panoptic(*classes):
    """Label maps that hold only these classes each."""
    maps = [torch.tensor(each)[torch.randint(len(each), SIZE)] for each in classes]
    return [PixelData(sem_seg=each[None]) for each in maps]


def heads():
    config = head_config({'num_things_classes': 2, 'num_stuff_classes': 2})
    return Mask2FormerHead(**config), BatchedMask2FormerHead(**config)


def check_same(found, expected):
    """The same labels and masks, those of stuff in any order."""
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.masks.dtype == torch.bool
        rows = [
            sorted(zip(each.labels.tolist(), each.masks.long().tolist(), strict=True))
            for each in (ours, theirs)
        ]
        assert rows[0] == rows[1]
        assert ours.masks.shape == theirs.masks.shape
        assert ours.labels.dtype == theirs.labels.dtype


@pytest.mark.parametrize('counts', [(3, 1), (0, 2), (0, 0)])
def test_things_are_mmdets_but_boolean_and_copied_once(counts):
    stock, ours = heads()
    given = things(*counts)
    check_same(ours.preprocess_gt(given, [None, None]), stock.preprocess_gt(given, [None, None]))
    assert counted(lambda: ours.preprocess_gt(given, [None, None])).synchronisations == 1


def test_polygons_are_drawn():
    stock, ours = heads()
    square = [np.float32([2, 2, 9, 2, 9, 9, 2, 9])]
    given = [InstanceData(labels=torch.tensor([1]), masks=PolygonMasks([square], *SIZE))]
    check_same(ours.preprocess_gt(given, [None]), stock.preprocess_gt(given, [None]))


@pytest.mark.parametrize(
    'maps', [([0, 1, 2, 3, 255], [2, 255]), ([0, 1], [3]), ([255], [4, 200])], ids=str
)
def test_stuff_joins_the_things_with_three_waits_a_batch(maps):
    stock, ours = heads()
    given, maps = things(2, 0), panoptic(*maps)
    check_same(ours.preprocess_gt(given, maps), stock.preprocess_gt(given, maps))
    assert counted(lambda: ours.preprocess_gt(given, maps)).synchronisations == 3


def test_a_loss_that_is_mmdets_gets_mmdets_masks():
    options = {'train_cfg.assigner.match_costs': dict(type='FocalLossCost')}
    config = head_config(options | {'num_things_classes': 2, 'num_stuff_classes': 2})
    ours, given, maps = BatchedMask2FormerHead(**config), things(2, 1), panoptic([2], [0, 3])
    assert {each.masks.dtype for each in ours.preprocess_gt(given, maps)} == {torch.int64}
    seg = BatchedSegMask2FormerHead(**config, num_classes=4)
    found, _ = seg._seg_data_to_instance_data(samples([2], [0, 3]))
    assert {each.masks.dtype for each in found} == {torch.int64}


def test_images_with_and_without_label_maps_mix():
    stock, ours = heads()
    given, maps = things(2, 1), [None, *panoptic([0, 3])]
    found, expected = (each.preprocess_gt(given, maps) for each in (ours, stock))
    assert [each.labels.tolist() for each in found] == [each.labels.tolist() for each in expected]


def test_masks_of_different_sizes_are_refused_with_the_fix():
    given = [*things(1), *things(2, size=(8, 8))]
    line = (
        'The masks of a batch must have one size, got (16, 24), (8, 8); pad them with the images: '
        'data_preprocessor=dict(pad_mask=True).'
    )
    with pytest.raises(ValueError, match=f'^{re.escape(line)}$'):
        heads()[1].preprocess_gt(given, [None, None])


@pytest.mark.parametrize(('masks', 'maps'), [(SIZE, (8, 8)), ((8, 8), SIZE)], ids=str)
def test_label_maps_of_another_size_are_refused_with_the_fix(masks, maps):
    given = [*things(1, size=masks), *things(2, size=masks)]
    stuff = [PixelData(sem_seg=torch.zeros(1, *size, dtype=torch.long)) for size in (masks, maps)]
    line = (
        f'The masks and label maps of a batch must have one size, got {masks}, {maps}; pad them '
        'with the images: data_preprocessor=dict(pad_mask=True, pad_seg=True).'
    )
    with pytest.raises(ValueError, match=f'^{re.escape(line)}$'):
        heads()[1].preprocess_gt(given, stuff)


def seg_heads(**options):
    config = head_config({'num_things_classes': 3}) | dict(num_classes=4, **options)
    return SegMask2FormerHead(**config), BatchedSegMask2FormerHead(**config)


def samples(*classes):
    return [
        SegDataSample(gt_sem_seg=PixelData(data=each.sem_seg), metainfo=dict(img_path=str(i)))
        for i, each in enumerate(panoptic(*classes))
    ]


@pytest.mark.parametrize('ignore_index', [255, 0])
@pytest.mark.parametrize('maps', [([0, 1, 3], [2, 0]), ([1], [0]), ([0], [0])], ids=str)
def test_classes_are_mmsegs_but_boolean_with_two_waits_a_batch(maps, ignore_index):
    stock, ours = seg_heads(ignore_index=ignore_index)
    given = samples(*maps)
    found, metas = ours._seg_data_to_instance_data(given)
    expected, expected_metas = stock._seg_data_to_instance_data(given)
    check_same(found, expected)
    assert metas == expected_metas
    assert counted(lambda: ours._seg_data_to_instance_data(given)).synchronisations == 2


def test_labels_beyond_the_classes_are_refused():
    line = (
        'A label map has the label 4, which is neither in 0 to 3 nor ignore_index=255; '
        'num_classes=4 is too small, or the labels start at 1 (reduce_zero_label).'
    )
    with pytest.raises(ValueError, match=f'^{re.escape(line)}$'):
        seg_heads()[1]._seg_data_to_instance_data(samples([0, 4], [255]))


def test_a_whole_loss_of_mmseg_is_that_of_its_own_head(monkeypatch):
    stock, ours = seg_heads()
    ours.load_state_dict(stock.state_dict())
    assert list(ours.state_dict()) == list(stock.state_dict())
    given = samples([0, 1, 3, 255], [2])
    maps = [torch.randn(2, 128, 16 // 2**i, 24 // 2**i) for i in range(4)]
    # all points at one place, so that both heads draw the same
    monkeypatch.setattr(
        torch, 'rand', lambda *size, device: torch.full(torch.empty(*size).shape, 0.4)
    )
    found = ours.loss(maps, given, None)
    expected = stock.loss(maps, given, None)
    assert list(found) == list(expected)
    for name, loss in found.items():
        torch.testing.assert_close(loss, expected[name].reshape(()), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ('recipe', 'head', 'stock', 'ours'),
    [
        ('mask2former_vit.py', 'panoptic_head', 'Mask2FormerHead', BatchedMask2FormerHead),
        (
            'mask2former/mask2former_vit-ti_camvid.py',
            'decode_head',
            'mmseg.Mask2FormerHead',
            BatchedSegMask2FormerHead,
        ),
        (
            'mask2former/mask2former_vit-b-dinov2_ade20k.py',
            'decode_head',
            'mmseg.Mask2FormerHead',
            BatchedSegMask2FormerHead,
        ),
        (
            'mask2former/mask2former_vit-b-dinov2_coco-panoptic.py',
            'panoptic_head',
            'Mask2FormerHead',
            BatchedMask2FormerHead,
        ),
    ],
)
def test_recipes_have_the_batched_head_and_take_the_stock_one(recipe, head, stock, ours):
    kinds = []
    for options in ([], [f'model.{head}.type={stock}']):
        cfg = load_config(CONFIGS / recipe, options)
        import_modules_from_strings(**cfg.custom_imports)
        init_default_scope(cfg.default_scope)
        cfg.model.backbone.update(pretrained=False, checkpoint=None)
        with torch.device('meta'):
            kinds.append(type(getattr(MODELS.build(cfg.model), head)))
    assert kinds == [ours, ours.__mro__[2]]
    assert kinds[1].__name__ == 'Mask2FormerHead'
