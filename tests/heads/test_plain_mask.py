"""The plain mask head: maps of any backbone, summed, and queries in blocks of the head's own."""

import pytest
import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from mmengine.registry import MODELS
from mmengine.structures import InstanceData

import vit_backbones.mmdet
import vit_backbones.mmseg  # noqa: F401
from vit_backbones import ViTFeatBackbone
from vit_backbones.models.random_weights import redraw

CHANNELS, QUERIES = 128, 5


def head_of(in_channels, kind='PlainMaskHead', **options):
    classes = dict(num_things_classes=3) if kind == 'PlainMaskHead' else dict(num_classes=3)
    config = dict(type=kind, in_channels=in_channels, num_queries=QUERIES, num_blocks=2)
    head = MODELS.build(config | classes | dict(train_cfg=dict(num_points=64)) | options)
    redraw(head)
    return head


def restated(head, maps, masks):
    """Queries and tokens after the last block, by dense masks and blocks called by hand."""
    decoder, (rows, columns) = head.decoder, maps[0].shape[-2:]
    x = 0
    for level, lateral in zip(maps, decoder.laterals, strict=True):
        tokens = level.flatten(2).mT
        inner = F.gelu(F.linear(tokens, lateral.mlp[0].weight, lateral.mlp[0].bias))
        x = x + lateral.scale * (tokens + F.linear(inner, *lateral.mlp[2].parameters()))
    x = torch.cat([head.query_embed.weight[None].expand(len(x), -1, -1), x], dim=1)
    ys, xs = ((torch.arange(n, dtype=x.dtype) + 0.5) / n * 2 - 1 for n in (rows, columns))
    places = torch.stack(torch.meshgrid(ys, xs, indexing='ij'), -1).flatten(0, 1)
    periods = 100 ** (2 * torch.arange(16, dtype=x.dtype) / 32)
    angles = (2 * torch.pi * places[:, :, None] / periods).flatten(1).tile(2)
    for block, mask in zip(decoder.blocks, masks, strict=True):
        dense = torch.ones(len(x), 1, x.shape[1], x.shape[1], dtype=torch.bool)
        dense[:, 0, :QUERIES, QUERIES:] = mask
        normed = block.norm1(x)
        bias = torch.cat([block.attn.q_bias, block.attn.k_bias, block.attn.v_bias])
        parts = F.linear(normed, block.attn.qkv.weight, bias).unflatten(-1, (3, 2, 64))
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind()
        query, key = (turned(each, angles) for each in (query, key))
        weights = (query @ key.mT / 8).masked_fill(~dense, -torch.inf).softmax(-1)
        x = x + block.gamma_1 * block.attn.proj((weights @ value).transpose(1, 2).flatten(2))
        x = x + block.gamma_2 * block.mlp(block.norm2(x))
    return decoder.norm(x)


def turned(x, angles):
    """Only the patches, by half-rotation."""
    queries, patches = x[:, :, :QUERIES], x[:, :, QUERIES:]
    first, second = patches.chunk(2, dim=-1)
    rotated = torch.cat([-second, first], dim=-1)
    return torch.cat([queries, patches * angles.cos() + rotated * angles.sin()], dim=2)


@pytest.mark.parametrize('levels', [1, 4])
def test_forward_equals_blocks_called_by_hand(levels):
    torch.manual_seed(0)
    head = head_of([CHANNELS] * levels).double()
    maps = [torch.randn(2, CHANNELS, 4, 6, dtype=torch.float64) for _ in range(levels)]
    masks = [torch.rand(2, QUERIES, 24) > 0.5 for _ in range(2)]
    got = head._run(maps, lambda index, joint: masks[index])
    want = restated(head, maps, masks)
    torch.testing.assert_close(got.extra, want[:, :QUERIES], rtol=0, atol=1e-6)
    torch.testing.assert_close(got.tokens.patches, want[:, QUERIES:], rtol=0, atol=1e-6)


MODELS_OF_MAPS = {
    'plain': (dict(model_name='test_vit', out_indices=(0, 1), norm='all'), (45, 70)),
    'patch 14': (
        dict(model_name='test_vit', patch_size=14, out_indices=(1,)),
        (45, 70),
    ),
    'staged': (
        dict(model_name='swin_tiny_patch4_window7_224', out_indices=(1, 2, 3), norm='none'),
        (97, 130),
    ),
}


@pytest.mark.parametrize('name', MODELS_OF_MAPS)
def test_loss_reaches_all_of_the_head_and_nothing_frozen(name):
    options, size = MODELS_OF_MAPS[name]
    backbone = ViTFeatBackbone(**options)
    backbone = ViTFeatBackbone(**options, frozen_stages=backbone.depth)
    strides = list(backbone.strides)
    stride = 16 if name == 'staged' else strides[0]
    head = head_of(list(backbone.out_channels), strides=strides, stride=stride, feat_channels=128)
    maps = backbone(torch.rand(2, 3, *size))
    masks = torch.rand(2, *size) > 0.5
    gt = [InstanceData(labels=torch.tensor([0, 2]), masks=masks) for _ in range(2)]
    losses = head.train().loss_by_feat(*head(maps), gt, [{}] * 2)
    sum(losses.values()).backward()
    assert [n for n, p in head.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert [n for n, p in backbone.named_parameters() if p.grad is not None] == []


@pytest.mark.parametrize('name', MODELS_OF_MAPS)
def test_predictions_have_the_size_of_the_batch(name):
    options, size = MODELS_OF_MAPS[name]
    backbone = ViTFeatBackbone(**options).eval()
    strides = list(backbone.strides)
    stride = 16 if name == 'staged' else strides[0]
    given = dict(strides=strides, stride=stride, feat_channels=128)
    metas = dict(batch_input_shape=size, pad_shape=size, img_shape=size)
    with torch.no_grad():
        maps = backbone(torch.rand(1, 3, *size))
        head = head_of(list(backbone.out_channels), **given).eval()
        scores, masks = head.predict(maps, [DetDataSample(metainfo=metas)])
        semantic = head_of(list(backbone.out_channels), 'SegPlainMaskHead', **given).eval()
        assert semantic.predict(maps, [metas]).shape == (1, 3, *size)
    assert scores.shape == (1, QUERIES, 4)
    assert masks.shape == (1, QUERIES, *size)


def test_a_level_of_another_stride_lies_on_the_grid_of_the_tokens():
    head = head_of([CHANNELS] * 2, strides=[8, 16], stride=16)
    fine = torch.arange(8.0).expand(1, CHANNELS, 6, 8)
    coarse = torch.zeros(1, CHANNELS, 3, 4)
    for lateral in head.decoder.laterals:
        torch.nn.init.zeros_(lateral.mlp[2].weight)
        torch.nn.init.zeros_(lateral.mlp[2].bias)
        torch.nn.init.ones_(lateral.scale)
    tokens, grid = head.decoder._summed([fine, coarse])
    assert grid == (3, 4)
    assert tokens[0, :4, 0].tolist() == [0.5, 2.5, 4.5, 6.5]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            dict(in_channels=[128, 128], strides=[16]),
            r'^strides=\[16\] of 2 maps \(in_channels=\[128, 128\]\): give one for each map$',
        ),
        (dict(in_channels=[100]), r'^feat_channels=100 must be a multiple of 64$'),
    ],
)
def test_wrong_option_is_one_line(options, message):
    with pytest.raises(ValueError, match=message):
        head_of(**options)


def test_wrong_number_of_maps_is_one_line():
    message = r'^the backbone gives 1 maps, and the head has in_channels for 2: give in_channels '
    with pytest.raises(ValueError, match=message):
        head_of([CHANNELS] * 2)([torch.zeros(1, CHANNELS, 2, 2)])
