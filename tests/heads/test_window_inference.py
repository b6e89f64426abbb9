"""Semantic inference by windows, beside transformers' image processor and by hand."""

import itertools
import re

import pytest
import torch
import torch.nn.functional as F
from eomt_models import backbone_config, images, segmenter, training_at
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope
from transformers import EomtImageProcessor

from vit_backbones.heads.window_inference import window_starts
from vit_backbones.models.random_weights import redraw

CROP = dict(mode='windows', crop_size=(48, 48))


@pytest.fixture(autouse=True)
def fresh():
    training_at(stage=None)


@pytest.mark.parametrize(
    ('side', 'starts'),
    [(30, [0]), (48, [0]), (49, [0, 1]), (96, [0, 48]), (97, [0, 24, 49]), (150, [0, 34, 68, 102])],
)
def test_windows_are_as_few_as_cover_and_evenly_spread(side, starts):
    assert window_starts(side, 48) == starts


@pytest.mark.parametrize('window', [1, 7, 48, 512])
def test_windows_cover_each_pixel_of_any_side(window):
    for side in range(window, 12 * window + 3, 1 + window // 9):
        starts = window_starts(side, window)
        assert starts[0] == 0
        assert starts[-1] + window == side
        assert all(0 < b - a <= window for a, b in itertools.pairwise(starts))
        assert len(starts) == -(-side // window)


@pytest.mark.parametrize('shape', [(48, 100), (131, 48), (48, 48), (48, 511)])
def test_windows_are_those_of_transformers(shape):
    processor = EomtImageProcessor(
        size=dict(shortest_edge=48, longest_edge=None), do_split_image=True, do_pad=False
    )
    image = torch.zeros(3, *shape, dtype=torch.uint8)
    offsets = processor(image, return_tensors='pt')['patch_offsets']
    starts = [int(each[1]) for each in offsets]
    assert starts == window_starts(max(shape), 48)


def scores(model, x):
    metas = [dict(img_shape=x.shape[-2:], ori_shape=x.shape[-2:])] * len(x)
    with torch.no_grad():
        return model.eval().inference(x, metas)


@pytest.mark.parametrize('size', [(48, 100), (131, 48)])
def test_scores_are_averaged_where_windows_overlap(size):
    model, x = segmenter(test_cfg=CROP), images(*size)
    whole = segmenter(test_cfg=dict(mode='whole'))
    axis = 2 if size[0] > size[1] else 3
    total = counts = 0
    for start in window_starts(max(size), 48):
        part = scores(whole, x.narrow(axis, start, 48))
        after = max(size) - start - 48
        pads = (0, 0, start, after) if axis == 2 else (start, after, 0, 0)
        total = total + F.pad(part, pads)
        counts = counts + F.pad(torch.ones_like(part), pads)
    found = scores(model, x)
    torch.testing.assert_close(found, total / counts, rtol=1e-5, atol=1e-6)
    assert found.min() >= 0  # scores, no logits
    assert not torch.allclose(found, scores(whole, x), atol=1e-2)


@pytest.mark.parametrize('size', [(20, 33), (48, 48), (30, 48)])
def test_an_image_within_a_window_is_one(size):
    x = images(*size)
    expected = scores(segmenter(test_cfg=dict(mode='whole')), x)
    assert torch.equal(scores(segmenter(test_cfg=CROP), x), expected)


@pytest.mark.parametrize('size', [(20, 133), (60, 100)])
def test_images_of_any_size(size):
    assert scores(segmenter(test_cfg=CROP), images(*size)).shape == (2, 4, *size)


def test_all_windows_run_as_one_batch_unless_said():
    x = images(48, 140, batch=1)
    model, sizes = segmenter(test_cfg=CROP), []
    model.backbone.vit.patch_embed.register_forward_pre_hook(
        lambda _, args: sizes.append(len(args[0]))
    )
    expected = scores(model, x)
    model.test_cfg['window_batch'] = 2
    found = scores(model, x)
    assert sizes == [3, 2, 1]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_size_is_needed():
    model = segmenter(test_cfg=dict(mode='windows'))
    line = "test_cfg has mode='windows' without a size: add crop_size=(height, width)"
    with pytest.raises(ValueError, match=f'^{re.escape(line)}$'):
        scores(model, images(48, 48))


@pytest.mark.parametrize('mode', ['whole', 'slide'])
def test_mmsegs_own_modes_are_as_ever(mode):
    model = segmenter(test_cfg=dict(mode=mode, crop_size=(48, 48), stride=(32, 32)))
    assert scores(model, images(60, 75)).shape == (2, 4, 60, 75)


def test_other_heads_have_windows_too():
    init_default_scope('mmseg')
    head = dict(type='FCNHead', in_channels=64, channels=64, num_convs=0, num_classes=3)
    config = dict(
        type='WindowEncoderDecoder',
        backbone=backbone_config(out_indices=[1]),
        decode_head=head | dict(in_index=0, concat_input=False, norm_cfg=None, act_cfg=None),
        test_cfg=CROP,
    )
    model, x = redraw(MODELS.build(ConfigDict(config))), images(48, 72)
    parts = []
    for start in (0, 24):
        model.test_cfg['mode'] = 'whole'
        parts.append(scores(model, x[..., start : start + 48]))
    model.test_cfg['mode'] = 'windows'
    left, right = parts
    middle = (left[..., 24:] + right[..., :24]) / 2
    expected = torch.cat([left[..., :24], middle, right[..., 24:]], dim=-1)
    torch.testing.assert_close(scores(model, x), expected)
