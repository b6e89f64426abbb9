"""EoMT as detector and segmentor: what a config may leave out, what is refused, predictions."""

import re

import numpy as np
import pytest
import torch
from eomt_models import (
    CLASSES,
    QUERIES,
    STUFF,
    THINGS,
    backbone_config,
    detector,
    images,
    label_maps,
    no_training,
    objects,
    segmenter,
)
from mmdet.evaluation import INSTANCE_OFFSET
from mmdet.models.detectors import Mask2Former
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope
from mmseg.models.segmentors import EncoderDecoder

from vit_backbones.heads.joint_features import INSTEAD

SIZE = (50, 83)
NO_MAPS = 'its head gets queries that went through the backbone, no maps; leave it out. '


@pytest.fixture(autouse=True)
def fresh():
    no_training()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_a_config_needs_classes_queries_and_blocks_only(scope):
    init_default_scope(scope)
    head = dict(num_queries=QUERIES, num_blocks=1)
    things = head | dict(type='EoMTHead', num_things_classes=THINGS)
    classes = head | dict(type='SegEoMTHead', num_classes=CLASSES)
    models = [
        dict(type='EoMT', backbone=backbone_config(), panoptic_head=things),
        dict(type='SegEoMT', backbone=backbone_config(), decode_head=classes),
    ]
    built = [MODELS.build(ConfigDict(each)) for each in models]
    assert isinstance(built[0], Mask2Former)
    assert isinstance(built[1], EncoderDecoder)


@pytest.mark.parametrize(
    ('backbone', 'channels', 'doublings'),
    [
        (dict(), 64, 2),
        (dict(patch_size=14), 64, 1),
        (dict(model_name='vit_tiny_patch16_224'), 192, 2),
    ],
)
def test_one_line_swaps_the_backbone(backbone, channels, doublings):
    head = segmenter(backbone=backbone, redrawn=False).decode_head
    assert head.query_embed.weight.shape == (QUERIES, channels)
    assert len(head.upscale) == head.num_upscales == doublings


def test_the_heads_own_numbers_win():
    head = detector(dict(num_upscales=0), redrawn=False).panoptic_head
    assert len(head.upscale) == 0
    classes, masks = detector(dict(num_upscales=0)).eval()(images(*SIZE), objects(SIZE))
    assert masks[0].shape == (2, QUERIES, 4, 6)
    assert classes[0].shape == (2, QUERIES, THINGS + STUFF + 1)


@pytest.mark.parametrize(
    ('stuff', 'panoptic', 'fields'),
    [(0, False, {'pred_instances'}), (STUFF, True, {'pred_instances', 'pred_panoptic_seg'})],
)
def test_predictions_are_those_that_the_classes_allow(stuff, panoptic, fields):
    model = detector(dict(num_stuff_classes=stuff)).eval()
    assert dict(model.test_cfg) == dict(
        object_mask_thr=0.8,
        iou_thr=0.8,
        filter_low_score=True,
        max_per_image=10,
        instance_on=True,
        panoptic_on=panoptic,
    )
    for sample in model.predict(images(*SIZE), objects(SIZE)):
        assert fields == {'pred_instances', 'pred_panoptic_seg'} & set(sample.keys())
        assert sample.pred_instances.masks.shape[1:] == SIZE


def test_images_have_their_own_sizes_in_a_batch():
    model = detector().eval()
    samples = objects((48, 80))
    samples[1].set_metainfo(dict(img_shape=(40, 61), ori_shape=(80, 122)))
    first, second = model.predict(images(48, 80), samples)
    assert first.pred_panoptic_seg.sem_seg.shape == (1, 48, 80)
    assert second.pred_panoptic_seg.sem_seg.shape == (1, 80, 122)


def merged(cls, masks, num_things):
    """Panoptic result by the words of the paper's recipe: (class, whether a segment) of pixels."""
    scores, labels = cls.softmax(-1).max(-1)
    keep = (labels != cls.shape[-1] - 1) & (scores > 0.8)
    scores, labels, shares = scores[keep], labels[keep], masks[keep].sigmoid()
    found, number = np.full((2, *masks.shape[-2:]), -1), 0
    if not len(labels):
        return found
    winner = (scores[:, None, None] * shares).argmax(0)
    for query, label in enumerate(labels.tolist()):
        won, own = winner == query, shares[query] >= 0.5
        final = (won & own).numpy()
        if not own.sum() or not final.any() or won.sum() / own.sum() < 0.8:
            continue
        number += 1
        found[0][final] = label
        found[1][final] = number if label < num_things else 0
    return found


def test_the_panoptic_result_is_that_of_the_published_merging():
    fusion = detector().panoptic_fusion_head
    generator, segments = torch.Generator().manual_seed(0), 0
    for _ in range(60):
        cls = 8 * torch.randn(5, THINGS + STUFF + 1, generator=generator)
        coarse = 9 * torch.randn(5, 1, 2, 2, generator=generator)
        masks = torch.nn.functional.interpolate(coarse, (24, 32), mode='bilinear')[:, 0]
        expected = merged(cls, masks, THINGS)
        found = fusion.panoptic_postprocess(cls, masks).sem_seg[0].numpy()
        labels = np.where(found == THINGS + STUFF, -1, found % INSTANCE_OFFSET)
        np.testing.assert_array_equal(labels, expected[0])
        # numbers of segments differ, where one without pixels was counted
        pairs = set(zip(found.ravel().tolist(), expected[1].ravel().tolist(), strict=True))
        assert len(pairs) == len({a for a, _ in pairs})
        segments += len(pairs) - 1
    assert segments > 40


def test_the_segmentors_prediction_is_the_class_of_most_score():
    model = segmenter().eval()
    with torch.no_grad():
        expected = model.encode_decode(images(*SIZE), [dict(img_shape=SIZE)])
        found = model.predict(images(*SIZE), label_maps(SIZE))
    for sample, scores in zip(found, expected, strict=True):
        torch.testing.assert_close(sample.seg_logits.data, scores)
        assert torch.equal(sample.pred_sem_seg.data[0], scores.argmax(0))
    assert expected.shape == (2, CLASSES, *SIZE)


@pytest.mark.parametrize(
    ('build', 'options', 'line'),
    [
        (
            detector,
            dict(neck=dict(type='FPN')),
            f'EoMT takes no neck, got neck=FPN: {NO_MAPS}{INSTEAD}',
        ),
        (
            segmenter,
            dict(auxiliary_head=[dict(type='FCNHead'), dict(type='ASPPHead')]),
            'SegEoMT takes no auxiliary_head, got auxiliary_head=FCNHead, ASPPHead: '
            f'{NO_MAPS}{INSTEAD}',
        ),
        (
            segmenter,
            dict(head=dict(num_blocks=0)),
            "num_blocks must be in [1, 6], blocks of 'test_vit', got 0",
        ),
        (
            detector,
            dict(head=dict(num_blocks=7)),
            "num_blocks must be in [1, 6], blocks of 'test_vit', got 7",
        ),
        (detector, dict(head=dict(num_queries=0)), 'num_queries must be at least 1, got 0'),
    ],
)
def test_wrong_parts_and_numbers_are_one_line(build, options, line):
    with pytest.raises(ValueError, match=f'^{re.escape(line)}$'):
        build(**options)


def test_a_head_without_a_number_of_blocks_is_one_line():
    with pytest.raises(TypeError, match=r'^num_blocks takes ints, got None$'):
        segmenter(dict(num_blocks=None))


def test_one_class_of_pixels_is_refused_before_a_validation_fails():
    line = 'num_classes must be at least 2: a single class needs another for the background, got 1'
    with pytest.raises(ValueError, match=f'{line}$'):
        segmenter(dict(num_classes=1))


def test_another_backbone_is_refused_by_name():
    init_default_scope('mmdet')
    head = dict(type='EoMTHead', num_things_classes=3, num_queries=5, num_blocks=1)
    model = dict(type='EoMT', backbone=dict(type='ResNet', depth=18), panoptic_head=head)
    line = (
        'EoMT needs backbone=ViTFeatBackbone, through whose last blocks its queries go, got '
        f'ResNet; {INSTEAD}'
    )
    with pytest.raises(ValueError, match=f'^{re.escape(line)}$'):
        MODELS.build(ConfigDict(model))


def test_a_staged_backbone_is_refused_as_the_backbone_says():
    with pytest.raises(ValueError, match=f'^SwinTransformer .*: {re.escape(INSTEAD)}$'):
        segmenter(backbone=dict(model_name='swin_tiny_patch4_window7_224'))


def test_blocks_with_queries_have_no_drop_path():
    model = segmenter(dict(num_blocks=6), backbone=dict(drop_path_rate=0.9)).train()
    first, second = (model(images(*SIZE)) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize(
    'backbone',
    [
        dict(with_cls_token=False),
        dict(model_name='vit_tiny_patch16_224', img_size=64),
        dict(patch_size=(16, 8)),
    ],
    ids=['no CLS token', 'another model', 'oblong patches'],
)
def test_plain_vits_of_all_kinds_work(backbone):
    model = segmenter(backbone=backbone).train()
    losses = model.loss(images(*SIZE), label_maps(SIZE))
    assert all(each.isfinite() for each in losses.values())
    assert model.eval().predict(images(*SIZE))[0].pred_sem_seg.data.shape == (1, *SIZE)


@pytest.mark.parametrize('name', ['EoMT', 'EoMTHead', 'SegEoMT', 'SegEoMTHead'])
def test_registered(name):
    assert MODELS.get(name).__name__ == name
