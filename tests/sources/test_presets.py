"""Sapiens and mmpretrain's `arch`: features equal to mmpretrain's ViT, written out here."""

import functools

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import MODELS
from redraw import error, images, pad, redraw

from vit_backbones import ViTFeatBackbone

ARCH = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=100)
# As the configs of Sapiens write it
SAPIENS = dict(
    img_size=(1024, 768),
    patch_size=16,
    qkv_bias=True,
    final_norm=True,
    drop_path_rate=0.0,
    with_cls_token=False,
    out_type='featmap',
    patch_cfg=dict(padding=2),
)
# Names of mmpretrain's ViT, to be replaced in this order, and timm's
NAMES = {
    'patch_embed.projection': 'patch_embed.proj',
    'layers.0.ln': 'blocks.0.norm',
    'layers.1.ln': 'blocks.1.norm',
    'ffn.layers.0.0': 'mlp.fc1',
    'ffn.layers.1': 'mlp.fc2',
    'layers': 'blocks',
    'ln1': 'norm',
}


def draw(qkv_bias=True, num_prefix=1, grid=(4, 6)):
    """Weights of mmpretrain's ViT of two layers under its names."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        'patch_embed.projection.weight': (48, 3, 16, 16),
        'patch_embed.projection.bias': (48,),
        'pos_embed': (1, num_prefix + grid[0] * grid[1], 48),
        'ln1.weight': (48,),
        'ln1.bias': (48,),
    }
    if num_prefix:
        shapes['cls_token'] = (1, 1, 48)
    matrices = {'attn.qkv': (144, 48), 'attn.proj': (48, 48)}
    matrices |= {'ffn.layers.0.0': (100, 48), 'ffn.layers.1': (48, 100)}
    for layer in ('layers.0.', 'layers.1.'):
        for norm in ('ln1', 'ln2'):
            shapes |= {f'{layer}{norm}.weight': (48,), f'{layer}{norm}.bias': (48,)}
        for name, shape in matrices.items():
            shapes |= {f'{layer}{name}.weight': shape, f'{layer}{name}.bias': shape[:1]}
        if not qkv_bias:
            del shapes[f'{layer}attn.qkv.bias']
    drawn = {n: torch.randn(shape, generator=generator) for n, shape in shapes.items()}
    return {
        n: t / t[0].numel() ** 0.5 if n.endswith('weight') and t.ndim > 1 else t
        for n, t in drawn.items()
    }


def timms_name(name):
    for old, new in NAMES.items():
        name = name.replace(old, new)
    return name


def mmpretrain(weights, x, padding=0):
    """All tokens after mmpretrain's ViT (Apache-2.0) of two layers and its final norm."""

    def linear(tokens, name):
        return F.linear(tokens, weights[f'{name}.weight'], weights.get(f'{name}.bias'))

    def norm(tokens, name):
        scale, shift = weights[f'{name}.weight'], weights[f'{name}.bias']
        mean, spread = tokens.mean(-1, keepdim=True), tokens.var(-1, False, keepdim=True)
        return (tokens - mean) / (spread + 1e-6).sqrt() * scale + shift

    kernel, bias = (weights[f'patch_embed.projection.{part}'] for part in ('weight', 'bias'))
    tokens = F.conv2d(x, kernel, bias, stride=16, padding=padding).flatten(2).mT
    if 'cls_token' in weights:
        tokens = torch.cat([weights['cls_token'], tokens], dim=1)
    tokens = tokens + weights['pos_embed']
    for layer in ('layers.0', 'layers.1'):
        qkv = linear(norm(tokens, f'{layer}.ln1'), f'{layer}.attn.qkv')
        query, key, value = qkv.reshape(1, -1, 3, 3, 16).permute(2, 0, 3, 1, 4)
        attention = (query @ key.mT / 4).softmax(-1) @ value  # (1, heads, N, 16)
        tokens = tokens + linear(attention.transpose(1, 2).flatten(2), f'{layer}.attn.proj')
        hidden = F.gelu(linear(norm(tokens, f'{layer}.ln2'), f'{layer}.ffn.layers.0.0'))
        tokens = tokens + linear(hidden, f'{layer}.ffn.layers.1')
    return norm(tokens, 'ln1')


def loaded(weights, **options):
    vit = ViTFeatBackbone(arch=ARCH, img_size=(64, 96), out_type='raw', **options).eval()
    vit.vit.load_state_dict({timms_name(name): tensor for name, tensor in weights.items()})
    return vit


@functools.cache
def on_meta(arch, **options):
    """A model without storage, which knows shapes alone."""
    with torch.device('meta'):
        return ViTFeatBackbone(arch=arch, **options)


# Sizes


@pytest.mark.parametrize(
    ('arch', 'width', 'depth', 'heads', 'hidden'),
    [
        ('sapiens_0.3b', 1024, 24, 16, 4096),
        ('sapiens_0.6b', 1280, 32, 16, 5120),
        ('sapiens_1b', 1536, 40, 24, 6144),
        ('sapiens_2b', 1920, 48, 32, 7680),
        ('small', 768, 8, 8, 2304),
        ('b', 768, 12, 12, 3072),
        ('Large', 1024, 24, 16, 4096),
        ('dinov2-small', 384, 12, 6, 1536),
    ],
)
def test_sizes_of_named_architectures(arch, width, depth, heads, hidden):
    vit = on_meta(arch).vit
    block = vit.blocks[-1]
    sizes = vit.embed_dim, len(vit.blocks), block.attn.num_heads, block.mlp.fc1.out_features
    assert sizes == (width, depth, heads, hidden)
    assert (vit.norm.eps, block.norm1.eps) == (1e-6, 1e-6)


def test_sapiens_configs_build_unchanged():
    with torch.device('meta'):
        vit = ViTFeatBackbone(arch='sapiens_1b', **SAPIENS)
        (maps,) = vit(torch.empty(1, 3, 1024, 768))
    assert maps.shape == (1, 1536, 64, 48)
    assert vit.vit.pos_embed.shape == (1, 64 * 48, 1536)


def test_sapiens_as_a_source_is_of_the_size_of_its_pretraining():
    with torch.device('meta'):
        vit = ViTFeatBackbone('sapiens_1b', source='sapiens')
        (maps,) = vit(torch.empty(1, 3, 1024, 1024))
    assert maps.shape == (1, 1536, 64, 64)
    assert vit.vit.pos_embed.shape == (1, 1 + 64 * 64, 1536)


def test_feedforward_channels_need_not_be_a_multiple_of_the_width():
    arch = dict(ARCH, embed_dims=768, num_heads=12, feedforward_channels=2305)
    with torch.device('meta'):
        assert ViTFeatBackbone(arch=arch).vit.blocks[0].mlp.fc1.out_features == 2305


# Features


@pytest.mark.parametrize('padding', [0, 2, (1, 7)], ids=str)
@pytest.mark.parametrize('qkv_bias', [True, False])
@torch.no_grad()
def test_features_equal_mmpretrains(padding, qkv_bias):
    weights, x = draw(qkv_bias), images(64, 96)
    vit = loaded(weights, qkv_bias=qkv_bias, patch_cfg=dict(padding=padding))
    assert error(vit(x)[0], mmpretrain(weights, x, padding)) <= 1


@torch.no_grad()
def test_features_without_cls_token_equal_mmpretrains():
    weights, x = draw(num_prefix=0), images(64, 96)
    vit = loaded(weights, with_cls_token=False, patch_cfg=dict(padding=2))
    assert error(vit(x)[0], mmpretrain(weights, x, 2)) <= 1


@torch.no_grad()
def test_images_of_an_odd_size_are_padded_to_the_patch_first():
    weights, x = draw(), images(53, 90)
    vit = loaded(weights, patch_cfg=dict(padding=2))
    assert error(vit(x)[0], mmpretrain(weights, pad(x, 16), 2)) <= 1


@torch.no_grad()
def test_padding_matters():
    weights, x = draw(), images(64, 96)
    assert error(loaded(weights)(x)[0], mmpretrain(weights, x, 2)) > 1000


@torch.no_grad()
def test_original_positions_are_resampled_as_mmpretrains():
    weights, x = draw(num_prefix=0), images(96, 80)
    table = weights['pos_embed'].mT.reshape(1, 48, 4, 6)
    table = F.interpolate(table, size=(6, 5), mode='bicubic').flatten(2).mT
    vit = loaded(weights, with_cls_token=False, pos_interp='original')
    assert error(vit(x)[0], mmpretrain(weights | dict(pos_embed=table), x)) <= 1


def test_layer_scale_starts_at_its_value():
    vit = ViTFeatBackbone(arch=ARCH, layer_scale_init_value=1e-5).vit
    assert vit.blocks[1].ls2.gamma.tolist() == pytest.approx([1e-5] * 48)
    assert not any('gamma' in name for name, _ in ViTFeatBackbone(arch=ARCH).vit.named_parameters())


@torch.no_grad()
def test_set_input_size_keeps_the_padding():
    vit = redraw(ViTFeatBackbone(arch=ARCH, patch_cfg=dict(padding=2))).eval()
    x = images(64, 96)
    before = vit(x)[0]
    vit.set_input_size((64, 96))
    assert error(vit(x)[0], before) <= 1


# Files


def test_a_square_file_with_cls_token_fits_a_rectangle_without(tmp_path):
    square = redraw(ViTFeatBackbone(arch=ARCH, img_size=128))
    torch.save(square.vit.state_dict(), tmp_path / 'vit.pth')
    vit = ViTFeatBackbone(
        arch=ARCH,
        img_size=(96, 64),
        with_cls_token=False,
        pos_interp='original',
        checkpoint=tmp_path / 'vit.pth',
    )
    table = square.vit.pos_embed[:, 1:].mT.reshape(1, 48, 8, 8)
    expected = F.interpolate(table, size=(6, 4), mode='bicubic').flatten(2).mT
    torch.testing.assert_close(vit.vit.pos_embed, expected)


def test_a_rectangular_file_without_cls_token_fits_its_own_size(tmp_path):
    """As those of Sapiens' heads; 24 rows are no square."""
    options = dict(arch=ARCH, img_size=(96, 64), with_cls_token=False)
    saved = redraw(ViTFeatBackbone(**options))
    torch.save(saved.vit.state_dict(), tmp_path / 'vit.pth')
    vit = ViTFeatBackbone(**options, checkpoint=tmp_path / 'vit.pth')
    assert torch.equal(vit.vit.pos_embed, saved.vit.pos_embed)


# Configs


def test_builds_from_a_config_file(tmp_path):
    (tmp_path / 'config.py').write_text(
        f"model = dict(type='ViTFeatBackbone', arch=dict({ARCH!r}), patch_cfg=dict(padding=2))"
    )
    vit = MODELS.build(Config.fromfile(tmp_path / 'config.py').model)
    assert vit.vit.patch_embed.proj.padding == (2, 2)


def test_preprocess_is_that_of_sapiens():
    preprocess = on_meta('sapiens_0.3b').preprocess
    assert preprocess['mean'] == [123.675, 116.28, 103.53]
    assert preprocess['std'] == [58.395, 57.12, 57.375]


# What is refused


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(model_name='vit_tiny_patch16_224', arch='base'), 'arch replaces model_name and sour'),
        (dict(arch='base', source='torchvision'), 'arch replaces model_name and source'),
        (dict(arch='bas'), "arch must be one of 's', 'small', .*got 'bas'"),
        (dict(arch=dict(embed_dims=48)), 'a dict with embed_dims, num_layers, num_heads, feedf'),
        (dict(arch=dict(ARCH, num_heads=5)), 'num_heads must divide embed_dims'),
        (dict(model_name='sapiens_3b', source='sapiens'), "one of 'sapiens_0.3b'.*'sapiens_3b'"),
        (dict(model_name='test_vit', qkv_bias=False), 'qkv_bias: only with arch='),
        (dict(arch=ARCH, patch_cfg=dict(padding=8)), r'patch of 16 must be in \[0, 7\].*got 8'),
        (dict(arch=ARCH, patch_cfg=dict(padding='same')), "an int, two or 'corner', got 'same'"),
        (dict(arch=ARCH, patch_cfg=dict(stride=8)), 'patch_cfg: stride cannot be honoured'),
    ],
    ids=lambda value: '-'.join(value) if isinstance(value, dict) else None,
)
def test_what_cannot_be_honoured_is_refused(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        ViTFeatBackbone(**options)
    assert '\n' not in str(caught.value)


def test_pretrained_weights_are_asked_for_as_a_file():
    with pytest.raises(RuntimeError, match=r"weights for 'sapiens_1b': .*checkpoint="):
        ViTFeatBackbone(arch='sapiens_1b', pretrained=True)


def test_padding_up_to_the_corner_is_what_images_get_anyway():
    vit = ViTFeatBackbone(arch=ARCH, patch_cfg=dict(padding='corner'))
    assert vit.vit.patch_embed.proj.padding == (0, 0)


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        (dict(arch='base'), 'arch replaces model_name and source'),
        (dict(patch_cfg=dict(padding=2)), 'patch_cfg: only with arch='),
    ],
    ids=str,
)
def test_an_existing_model_is_not_rebuilt(option, message):
    with pytest.raises(ValueError, match=message):
        ViTFeatBackbone.from_module(ViTFeatBackbone(arch=ARCH).vit, **option)
