"""The two plain families of timm: features equal to timm's own, and what the adapter refuses."""

import functools

import pytest
import torch
import torch.nn.functional as F
from redraw import TINY, backbone, copy_weights, error, images, pad, timm_layers, timm_vit
from torch import nn

from vit_backbones import ViTFeatBackbone

# The width is cut where the smallest model of a kind is large
FAMILIES = {
    'vit_tiny_patch16_224': None,  # AugReg
    'deit_tiny_patch16_224': None,
    'deit3_small_patch16_224': 192,  # LayerScale, CLS without position
    'vit_small_patch14_dinov2': 192,
    'vit_small_patch14_reg4_dinov2': 192,  # registers, no position for them and CLS
    'vit_base_patch32_clip_224': 192,  # norm in front of the blocks
    'vit_base_patch16_siglip_224': 192,  # no CLS, attention pooling
    'vit_base_patch16_224.mae': 192,
    'vit_little_patch16_reg4_gap_256': 192,  # registers without CLS, fc_norm only
    'vit_medium_patch16_gap_240': 192,  # no prefix, fc_norm only
    'flexivit_small': 192,
    'vit_so150m_patch16_reg4_map_256': 192,  # registers with positions
    'eva_giant_patch14_224': 192,
    'eva02_tiny_patch14_224': None,  # learned and rotary positions, SwiGLU
    'vit_pe_core_tiny_patch16_384': None,
    'vit_pe_spatial_tiny_patch16_512': None,
    'vit_pe_spatial_gigantic_patch14_448': 192,  # Eva without prefix tokens
    'vit_small_patch16_dinov3': 192,  # rotary positions only, registers
    'vit_small_plus_patch16_dinov3': 192,
    'vit_small_patch16_rope_mixed_ape_224': 192,  # another rotation for each block
}
SIZES = [(224, 224), (250, 333), (480, 640), (1024, 128)]
# How timm is told to build the same without a class token, its final norm staying where it is
WITHOUT_CLS = [
    ('vit_tiny_patch16_224', 0, dict(global_pool='avg', fc_norm=False)),
    ('vit_tiny_patch16_224', 2, dict(global_pool='avg', fc_norm=False)),
    ('deit3_small_patch16_224', 0, dict(global_pool='avg', fc_norm=False)),
    ('vit_small_patch14_reg4_dinov2', 4, dict(global_pool='avg', fc_norm=False)),
    ('eva02_tiny_patch14_224', 0, {}),
    ('vit_small_patch16_dinov3', 4, {}),
    ('vit_small_patch16_rope_mixed_ape_224', 0, dict(global_pool='avg', use_fc_norm=False)),
]


@functools.cache
def pair(name, width):
    """A backbone of two blocks and the stock timm model with the same weights."""
    reference = timm_vit(name, depth=2, width=width)
    ours = backbone(name, depth=2, width=width, out_indices=(0, 1), out_type='raw')
    copy_weights(ours.vit, reference.state_dict())
    return ours, reference


def last_features(reference, x):
    return reference.forward_features(pad(x, *reference.patch_embed.patch_size))


@pytest.mark.parametrize('size', SIZES, ids=str)
@pytest.mark.parametrize(('name', 'width'), FAMILIES.items(), ids=FAMILIES)
@torch.no_grad()
def test_features_equal_timms(name, width, size):
    ours, reference = pair(name, width)
    x = images(*size)
    first, last = ours(x)
    assert error(first, timm_layers(reference, x, [0])[0]) <= 1
    assert error(last, last_features(reference, x)) <= 1


@pytest.mark.parametrize('name', [TINY, 'eva02_tiny_patch14_224'])
@torch.no_grad()
def test_twelve_blocks_equal_timms(name):
    reference = timm_vit(name, depth=12)
    ours = ViTFeatBackbone(name, out_indices='even4', out_type='raw').eval()
    copy_weights(ours.vit, reference.state_dict())
    x = images(112, 150)
    expected = [*timm_layers(reference, x, [2, 5, 8]), last_features(reference, x)]
    assert all(error(*both) <= 1 for both in zip(ours(x), expected, strict=True))


def drop_block(vit):
    vit.blocks[0].forward = lambda tokens, *args, **kwargs: tokens


def swap_queries_and_keys(vit):
    weight = vit.blocks[0].attn.qkv.weight.data
    query, key, value = weight.clone().chunk(3)
    weight.copy_(torch.cat([key, query, value]))


@pytest.mark.parametrize('damage', [drop_block, swap_queries_and_keys])
@pytest.mark.parametrize('name', ['vit_small_patch14_dinov2', 'vit_small_patch16_dinov3'])
@torch.no_grad()
def test_comparison_with_timm_sees_damage(name, damage):
    reference = timm_vit(name, depth=2, width=192)
    ours = backbone(name, depth=2, width=192, out_type='raw')
    copy_weights(ours.vit, reference.state_dict())
    damage(ours.vit)
    x = images(64, 96)
    assert error(ours(x)[0], last_features(reference, x)) > 1000


@pytest.mark.parametrize(('name', 'registers', 'pooling'), WITHOUT_CLS)
@torch.no_grad()
def test_without_cls_token_equals_timm_built_without_it(name, registers, pooling, tmp_path):
    more = dict(reg_tokens=registers) if name == TINY else {}
    weights = timm_vit(name, depth=2, width=192, **more).state_dict()
    torch.save(weights, tmp_path / 'with_cls.pth')
    ours = backbone(
        name,
        depth=2,
        width=192,
        timm_options=more,
        with_cls_token=False,
        out_type='raw',
        checkpoint=tmp_path / 'with_cls.pth',
    )
    assert (ours.has_cls_token, ours.num_prefix_tokens) == (False, registers)
    reference = timm_vit(name, depth=2, width=192, class_token=False, **pooling, **more)
    if reference.pos_embed is not None and not reference.no_embed_class:
        weights['pos_embed'] = weights['pos_embed'][:, 1:]
    copy_weights(reference, weights)
    for x in images(224, 224), images(90, 200):
        assert error(ours(x)[0], last_features(reference, x)) <= 1


@pytest.mark.parametrize('patch_size', [8, 20, (16, 8)], ids=str)
@torch.no_grad()
def test_patch_size_resamples_weights_as_timm(patch_size, tmp_path):
    """Patch embedding and positions of the file against timm's own resampling of its model."""
    reference = timm_vit(depth=2)
    torch.save(reference.state_dict(), tmp_path / 'vit.pth')
    ours = backbone(depth=2, patch_size=patch_size, out_type='raw', checkpoint=tmp_path / 'vit.pth')
    patch = ours.layer_strides[0]
    reference.set_input_size((224, 224), patch_size=patch)
    x = images(96, 160)
    assert error(ours(x)[0], last_features(reference, x)) <= 1


@pytest.mark.parametrize('channels', [1, 4])
@torch.no_grad()
def test_in_channels_adapts_rgb_weights_as_timm(channels, tmp_path):
    weights = timm_vit(depth=1).state_dict()
    torch.save(weights, tmp_path / 'rgb.pth')
    ours = backbone(depth=1, in_channels=channels, checkpoint=tmp_path / 'rgb.pth')
    rgb = weights['patch_embed.proj.weight']
    expected = {1: rgb.sum(1, keepdim=True), 4: rgb[:, [0, 1, 2, 0]] * 3 / 4}[channels]
    torch.testing.assert_close(ours.vit.patch_embed.proj.weight.data, expected)
    assert ours(images(32, 48, channels=channels))[0].shape == (1, 192, 2, 3)


def authors_positions(vit, grid):
    """The table as Meta's own code resamples it: with registers by size and antialiased."""
    prefix = 0 if vit.no_embed_class else 1
    table = vit.pos_embed[:, prefix:].reshape(1, 37, 37, -1).permute(0, 3, 1, 2)
    if vit.reg_token is not None:
        table = F.interpolate(table, size=grid, mode='bicubic', antialias=True)
    else:
        scale = tuple((side + 0.1) / 37 for side in grid)
        table = F.interpolate(table, scale_factor=scale, mode='bicubic')
    assert table.shape[-2:] == grid
    return torch.cat([vit.pos_embed[:, :prefix], table.flatten(2).transpose(1, 2)], dim=1)


DINOV2 = ['vit_small_patch14_dinov2', 'vit_small_patch14_reg4_dinov2']


@pytest.mark.parametrize('name', DINOV2)
@torch.no_grad()
def test_original_positions_are_those_of_the_authors(name):
    ours = backbone(name, depth=1, width=24, pos_interp='original', out_type='raw')
    x = images(250, 333)
    out = ours(x)[0]
    table = authors_positions(ours.vit, (18, 24))
    ours.vit.patch_embed.grid_size, ours.vit.pos_embed = (18, 24), nn.Parameter(table)
    assert error(out, last_features(ours.vit, x)) <= 1


@torch.no_grad()
def test_original_and_timm_positions_differ_off_the_native_grid_only():
    ours = backbone(DINOV2[0], depth=1, width=24)
    native, other = images(518, 518), images(250, 333)
    as_timm = ours(native)[0], ours(other)[0]
    ours.pos_interp = 'original'
    assert torch.equal(ours(native)[0], as_timm[0])
    assert error(ours(other)[0], as_timm[1]) > 1000


@torch.no_grad()
def test_set_input_size_keeps_the_original_positions():
    ours = backbone(DINOV2[0], depth=1, width=24, pos_interp='original')
    x = images(250, 333)
    before = ours(x)[0]
    ours.set_input_size((250, 333))
    assert ours.position_grid.tolist() == [18, 24]
    assert error(ours(x)[0], before) <= 1


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('vit_tinny_patch16_224', "'vit_tinny_patch16_224'.*closest: vit_tiny_patch16_224"),
        ('deit_tinny_patch16_224', 'closest: deit_tiny_patch16_224'),
        ('vit_tiny_patch16_224.mae', r'\(mae\).*vit_tiny_patch16_224\.augreg_in21k'),
        (None, 'give model_name, or arch'),
    ],
)
def test_other_names_are_refused(name, message):
    with pytest.raises(ValueError, match=message) as caught:
        ViTFeatBackbone(name)
    assert '\n' not in str(caught.value)


def test_preprocess_is_on_the_scale_of_pixels():
    clip = backbone('vit_base_patch32_clip_224', depth=1, width=24).preprocess
    assert clip['mean'] == pytest.approx([122.7709, 116.746, 104.0937], abs=1e-3)
    assert clip['std'] == pytest.approx([68.5005, 66.6322, 70.3232], abs=1e-3)
    assert clip['bgr_to_rgb'] is True


@pytest.mark.parametrize('name', [TINY, 'eva02_tiny_patch14_224'])
def test_a_training_that_drops_patches_is_refused(name):
    vit = backbone(name, depth=1, timm_options=dict(patch_drop_rate=0.25))
    x = images(112, 112)
    expected = vit(x)[0]
    with pytest.raises(ValueError, match=r'^patch_drop_rate=0\.25: .* its patch_drop\.prob to 0$'):
        vit.train()(x)
    vit.vit.patch_drop.prob = 0
    assert torch.equal(vit(x)[0], expected)


def test_hooks_of_the_patch_embedding_run():
    vit, seen = backbone(depth=1), []
    vit.vit.patch_embed.register_forward_hook(lambda module, args, out: seen.append(out.shape))
    vit(images(64, 96))
    assert seen == [(1, 4, 6, 192)]
