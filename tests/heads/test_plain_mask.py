"""The plain mask head: its forward pass, the maps that it takes, its losses and predictions."""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from eomt_models import (
    CLASSES,
    QUERIES,
    STUFF,
    THINGS,
    backbone_config,
    images,
    label_maps,
    no_training,
    objects,
)
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope

from vit_backbones.models.random_weights import redraw

SIZE = (40, 83)  # staged models pad them to 64 x 96, of which patches of 16 cover 48 x 96
FROZEN = dict(out_indices=(0, 1), norm='all', frozen_stages=6)
STAGED = dict(model_name='swin_tiny_patch4_window7_224', out_indices=(0, 1, 2, 3), frozen_stages=4)
OF_STAGED = dict(in_channels=[96, 192, 384, 768], strides=[4, 8, 16, 32], feat_channels=64)


@pytest.fixture(autouse=True)
def fresh():
    no_training()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def head_config(head=(), **options):
    own = dict(in_channels=[64, 64], num_queries=QUERIES, num_blocks=2)
    return options | own | dict(head)


def built(config):
    model = MODELS.build(ConfigDict(config))
    redraw(model)
    head = getattr(model, 'panoptic_head', None) or model.decode_head
    for block in head.upscale:  # else a mask has all patches or none
        torch.nn.init.zeros_(block.conv1.bias)
        torch.nn.init.zeros_(block.norm.bias)
    return model


def detector(head=(), *, backbone=()):
    init_default_scope('mmdet')
    classes = dict(num_things_classes=THINGS, num_stuff_classes=STUFF)
    return built(
        dict(
            type='Mask2Former',
            data_preprocessor=dict(type='DetDataPreprocessor'),
            backbone=backbone_config(**FROZEN | dict(backbone)),
            panoptic_head=head_config(head, type='PlainMaskHead', **classes),
            panoptic_fusion_head=dict(type='MaskFormerFusionHead', loss_panoptic=None, **classes),
            train_cfg=dict(num_points=64),
            test_cfg=dict(panoptic_on=True, instance_on=True, max_per_image=10),
        )
    )


def segmenter(head=(), *, backbone=(), model='EncoderDecoder', **options):
    init_default_scope('mmseg')
    own = dict(type='SegPlainMaskHead', num_classes=CLASSES, train_cfg=dict(num_points=64))
    return built(
        dict(
            type=model,
            data_preprocessor=dict(type='SegDataPreProcessor'),
            backbone=backbone_config(**FROZEN | dict(backbone)),
            decode_head=head_config(head, **own),
            test_cfg=dict(mode='whole'),
        )
        | options
    )


def linear(weights, name, x):
    return F.linear(x, weights[f'{name}.weight'], weights.get(f'{name}.bias'))


def norm(weights, name, x):
    return F.layer_norm(x, x.shape[-1:], weights[f'{name}.weight'], weights[f'{name}.bias'])


def rotated(x, grid):
    """Patches (B, heads, h*w, d) turned by the places of their centres in [-1, 1]."""
    d = x.shape[-1]
    periods = (100.0 ** (torch.arange(d // 4) / (d // 4))).double()
    rows, columns = ((2 * torch.arange(n).double() + 1) / n - 1 for n in grid)
    places = torch.cartesian_prod(rows, columns)  # (h*w, 2)
    angles = (2 * math.pi * places[..., None] / periods).flatten(1)
    turned = torch.view_as_complex(torch.stack(x.tensor_split(2, -1), -1).contiguous())
    turned = turned * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag], -1)


def attention(weights, name, x, mask, grid, heads):
    """With a dense mask (B, N, N)."""
    bias = weights[f'{name}.q_bias'], weights[f'{name}.v_bias']
    qkv = F.linear(x, weights[f'{name}.qkv.weight'])
    qkv = qkv + torch.cat([bias[0], torch.zeros_like(bias[0]), bias[1]])
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    q, k = (torch.cat([t[:, :, :QUERIES], rotated(t[:, :, QUERIES:], grid)], 2) for t in (q, k))
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    out = scores.masked_fill(~mask[:, None], -math.inf).softmax(-1) @ v
    return linear(weights, f'{name}.proj', out.transpose(1, 2).flatten(2))


def restated(weights, maps, allowed, heads):
    """Normed queries and patches of maps of one grid, by the words of the paper and the code."""
    grid, x = tuple(maps[0].shape[-2:]), 0
    for index, level in enumerate(maps):
        tokens, name = level.flatten(2).mT, f'laterals.{index}'
        inner = F.gelu(linear(weights, f'{name}.mlp.0', tokens))
        x = x + weights[f'{name}.scale'] * (tokens + linear(weights, f'{name}.mlp.2', inner))
    queries = weights['query_embed.weight'].expand(len(x), -1, -1)
    x, seen = torch.cat([queries, x], 1), []
    for index, patches in enumerate(allowed):
        seen.append(norm(weights, 'norm', x))
        mask, name = torch.ones(len(x), x.shape[1], x.shape[1], dtype=torch.bool), f'blocks.{index}'
        mask[:, :QUERIES, QUERIES:] = patches
        out = attention(
            weights, f'{name}.attn', norm(weights, f'{name}.norm1', x), mask, grid, heads
        )
        x = x + weights[f'{name}.gamma_1'] * out
        inner = F.gelu(linear(weights, f'{name}.mlp.fc1', norm(weights, f'{name}.norm2', x)))
        x = x + weights[f'{name}.gamma_2'] * linear(weights, f'{name}.mlp.fc2', inner)
    return [*seen, norm(weights, 'norm', x)]


@pytest.mark.parametrize(('levels', 'heads'), [(1, 1), (4, 2)])
def test_it_is_the_sum_of_laterals_and_blocks_with_a_dense_mask(levels, heads):
    head = segmenter(dict(in_channels=[64] * levels, num_heads=heads)).decode_head.double().eval()
    draw = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 64, 3, 5, generator=draw).double() for _ in range(levels)]
    allowed = [torch.rand(2, QUERIES, 15, generator=draw) > 0.6 for _ in range(2)]
    seen = []

    def before(index, joint):
        seen.append(torch.cat([joint.extra, joint.tokens.patches], 1))
        return allowed[index]

    last = head._run(maps, before)
    expected = restated(head.state_dict(), maps, allowed, heads)
    assert last.tokens.grid == (3, 5)
    assert last.tokens.prefix.shape == (2, 0, 64)
    for ours, theirs in zip(
        [*seen, torch.cat([last.extra, last.tokens.patches], 1)], expected, strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_maps_of_other_strides_are_sampled_where_the_patches_are():
    """A ramp stays one: cell i of stride 16 covers cells 4i..4i+3 of 4, and half a cell of 32."""
    head = segmenter(OF_STAGED).decode_head.eval()
    sampled = []
    for lateral in head.laterals:
        lateral.register_forward_pre_hook(lambda _, given: sampled.append(given[0]))
    ramps = [
        ((torch.arange(n) + 0.5) * stride).expand(1, channels, 2, n)
        for channels, stride, n in zip(
            OF_STAGED['in_channels'], (4, 8, 16, 32), (21, 11, 6, 3), strict=True
        )
    ]
    head._run(ramps, None)
    fine, coarse = sampled[:3], sampled[3]
    for each in fine:  # but for the last cells, of which parts lie beyond the map
        torch.testing.assert_close(each[0, :5, 0], torch.tensor([8.0, 24, 40, 56, 72]))
    torch.testing.assert_close(coarse[0, 1:5, 0], torch.tensor([24.0, 40, 56, 72]))


CASES = {
    'two maps': ({}, {}),
    'one map': (dict(out_indices=(1,)), dict(in_channels=64)),
    'patches of 14': (dict(patch_size=14), dict(stride=14)),
    'staged': (STAGED | dict(norm='last'), OF_STAGED),
}


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('kind', ['things', 'pixels'])
def test_all_of_the_head_learns_and_nothing_of_a_frozen_backbone(kind, case):
    backbone, head = CASES[case]
    build, samples = (
        (detector, objects(SIZE)) if kind == 'things' else (segmenter, label_maps(SIZE))
    )
    model = build(head, backbone=backbone).train()
    losses = model.loss(images(*SIZE), samples)
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    learnt = {name for name, p in model.named_parameters() if p.grad is not None}
    names = {name for name, _ in model.named_parameters()}
    assert learnt == {name for name in names if not name.startswith('backbone.')}
    assert any(name.startswith('backbone.') for name in names)


@pytest.mark.parametrize('case', CASES)
def test_predictions_have_the_size_of_the_images(case):
    backbone, head = CASES[case]
    found = detector(head, backbone=backbone).eval().predict(images(*SIZE), objects(SIZE))
    assert found[0].pred_instances.masks.shape[1:] == SIZE
    assert found[0].pred_panoptic_seg.sem_seg.shape == (1, *SIZE)
    model = segmenter(head, backbone=backbone).eval()
    found = model.predict(images(*SIZE), label_maps(SIZE))
    assert found[0].seg_logits.data.shape == (CLASSES, *SIZE)


def test_it_runs_in_windows():
    windows = dict(mode='windows', crop_size=(48, 48))
    model = segmenter(model='WindowEncoderDecoder', test_cfg=windows).eval()
    found = model.predict(images(48, 83), label_maps((48, 83)))
    assert found[0].seg_logits.data.shape == (CLASSES, 48, 83)


@pytest.mark.parametrize(
    ('head', 'message'),
    [
        (
            dict(in_channels=[64, 96]),
            'SegPlainMaskHead has in_channels=[64, 96] and got 2 maps of 64 and 64 channels: set '
            "in_channels to those of the backbone's maps",
        ),
        (
            dict(in_channels=[64] * 4),
            'SegPlainMaskHead has in_channels=[64, 64, 64, 64] and got 2 maps of 64 and 64 '
            "channels: set in_channels to those of the backbone's maps",
        ),
    ],
)
def test_other_maps_are_refused(head, message):
    with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
        segmenter(head).eval()(images(*SIZE))


@pytest.mark.parametrize(
    ('head', 'message'),
    [
        (dict(in_channels=[]), 'in_channels must name the channels of one map or more, got none'),
        (
            dict(strides=[8, 32]),
            'strides=[8, 32] must have one for each of the 2 in_channels, and stride=16 among them',
        ),
        (
            dict(strides=[16]),
            'strides=[16] must have one for each of the 2 in_channels, and stride=16 among them',
        ),
        (
            dict(feat_channels=70),
            'feat_channels=70 must be a multiple of 4 * num_heads, for positions of rows and '
            'columns; got num_heads=1',
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(head, message):
    with pytest.raises(ValueError, match=f'{re.escape(message)}$'):
        segmenter(head)
