"""Attention maps against the weights that the libraries themselves give where they are unfused."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torchvision.models import VisionTransformer

from vit_backbones import ViTFeatBackbone
from vit_backbones.features.attention_maps import attention_maps, attention_weights
from vit_backbones.models.random_weights import redraw

SMALL = dict(depth=2, embed_dim=32, num_heads=4)
TIMM = {
    'vit': ('vit_tiny_patch16_224', SMALL),
    'norms of queries and keys': ('vit_tiny_patch16_224', dict(qk_norm=True, **SMALL)),
    'registers': ('vit_small_patch14_reg4_dinov2', dict(img_size=56, **SMALL)),
    'no CLS token': ('vit_base_patch16_siglip_224', dict(global_pool='avg', **SMALL)),
    'rotary': ('vit_small_patch16_dinov3', SMALL),
    'eva02': ('eva02_tiny_patch14_224', dict(img_size=(70, 112), **SMALL)),
    'relative positions': ('beit_base_patch16_224', dict(img_size=(64, 112), **SMALL)),
}
IMAGES = torch.randn(2, 3, 64, 100, generator=torch.Generator().manual_seed(0))


def wrapped(vit, **options):
    backbone = ViTFeatBackbone.from_module(redraw(vit), out_indices=(1, 0), **options)
    return backbone.requires_grad_(False).eval()


@pytest.fixture(params=TIMM, scope='module')
def backbone(request):
    name, options = TIMM[request.param]
    return wrapped(timm.create_model(name, **options))


def close(out, reference):
    return (out - reference).abs().max() <= 1e-5 * max(1.0, reference.abs().max())


def unfused(backbone):
    """(B, heads, N, N) of each block, by timm's path without fused attention."""
    caught = []
    hooks = []
    for block in backbone.vit.blocks:
        block.attn.fused_attn = False
        hook = block.attn.attn_drop.register_forward_hook(lambda m, a, out: caught.append(out))
        hooks.append(hook)
    backbone(IMAGES)
    for block, hook in zip(backbone.vit.blocks, hooks, strict=True):
        block.attn.fused_attn = True
        hook.remove()
    return caught


def expected(backbone, weights, rows):
    prefix, (height, width) = backbone.num_prefix_tokens, backbone(IMAGES)[0].shape[-2:]
    maps = [each[:, :, rows(prefix), prefix:].mean(2) for each in weights]
    return [each.unflatten(-1, (height, width)) for each in (maps[1], maps[0])]


def first_or_all(backbone):
    return (lambda p: slice(0, 1)) if backbone.has_cls_token else (lambda p: slice(p, None))


def test_maps_are_those_of_timm_unfused(backbone):
    wanted = expected(backbone, unfused(backbone), first_or_all(backbone))
    assert len({tuple(each.flatten().tolist()) for each in wanted}) == 2
    for out, reference in zip(attention_maps(backbone, IMAGES), wanted, strict=True):
        assert close(out, reference)


class _Averaged(TorchFunctionMode):
    """Carries attention out as the weighted mean of the values."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        query, key, value, *mask = args
        mask = mask[0] if mask else kwargs.get('attn_mask')
        return attention_weights(query, key, mask, scale=kwargs.get('scale')) @ value


def test_weights_times_values_are_what_the_layers_give(backbone):
    reference = backbone(IMAGES)
    with _Averaged():
        outputs = backbone(IMAGES)
    assert all(close(*pair) for pair in zip(outputs, reference, strict=True))


def test_torchvision():
    vit = VisionTransformer(
        image_size=32, patch_size=16, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64
    )
    backbone, caught = wrapped(vit), []
    for layer in backbone.vit.encoder.layers:
        layer.self_attention.register_forward_pre_hook(
            lambda module, args: caught.append((module, args[0]))
        )
    backbone(IMAGES)
    weights = []
    for module, x in list(caught):
        projected = F.linear(x, module.in_proj_weight, module.in_proj_bias)
        q, k, _ = (y.unflatten(-1, (2, 16)).transpose(1, 2) for y in projected.chunk(3, dim=-1))
        weights.append((q @ k.mT / 4).softmax(-1))
    wanted = expected(backbone, weights, lambda p: slice(0, 1))
    for out, reference in zip(attention_maps(backbone, IMAGES), wanted, strict=True):
        assert close(out, reference)


def test_transformers():
    transformers = pytest.importorskip('transformers')
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    vit = redraw(transformers.ViTModel(transformers.ViTConfig(image_size=64, **sizes))).eval()
    maps = attention_maps(wrapped(vit), IMAGES[..., :64])
    vit.set_attn_implementation('eager')
    with torch.no_grad():
        weights = vit(IMAGES[..., :64], output_attentions=True).attentions
    for out, reference in zip(maps, weights[::-1], strict=True):
        assert close(out.flatten(2), reference[:, :, 0, 1:])


@pytest.mark.parametrize('option', ['use_rel_pos', 'mask_padding'])
@torch.no_grad()
def test_attention_of_our_own(option):
    """Against softmax written out, over 4x7 patches; the second image has 5 columns of them."""
    vit = timm.create_model('vit_tiny_patch16_224', img_size=(64, 112), **SMALL)
    backbone = redraw(wrapped(vit, with_cls_token=False, **{option: True})).eval()
    backbone.set_image_sizes([(64, 100), (64, 70)] if backbone.masks_padding else None)
    projected, rows, columns = [], torch.arange(28) // 7, torch.arange(28) % 7
    for block in backbone.vit.blocks:
        block.attn.qkv.register_forward_hook(lambda module, args, out: projected.append(out))
    maps = attention_maps(backbone, IMAGES)
    for block, out, qkv in zip(backbone.vit.blocks, maps[::-1], projected, strict=True):
        q, k, _ = qkv.unflatten(2, (3, 4, 8)).permute(2, 0, 3, 1, 4)
        logits = q @ k.mT / 8**0.5
        if backbone.masks_padding:
            logits[1].masked_fill_(columns >= 5, -torch.inf)
        else:
            of_rows = block.attn.rel_pos_h[rows[:, None] - rows + 3]
            of_columns = block.attn.rel_pos_w[columns[:, None] - columns + 6]
            logits += torch.einsum('bnqd,qkd->bnqk', q, of_rows + of_columns)
        assert close(out.flatten(2), logits.softmax(-1).mean(2))


@pytest.mark.parametrize('rows', [1, 5])
def test_memory_is_bounded_by_parts(rows, monkeypatch):
    name, options = TIMM['relative positions']
    backbone = wrapped(timm.create_model(name, **options))
    backbone.vit.cls_token.requires_grad_(False)
    monkeypatch.setattr(type(backbone), 'has_cls_token', False)
    whole = attention_maps(backbone, IMAGES)
    monkeypatch.setattr('vit_backbones.features.attention_maps._ROWS', rows)
    for out, reference in zip(attention_maps(backbone, IMAGES), whole, strict=True):
        assert close(out, reference)


@pytest.mark.parametrize(
    'vit',
    [
        lambda: timm.create_model('swin_tiny_patch4_window7_224', depths=(1, 1), num_heads=(1, 2)),
        lambda: timm.create_model('resnet10t'),
    ],
)
def test_other_models_are_refused(vit):
    with pytest.raises(ValueError, match=r'need a plain ViT .* does so 0 times in \d blocks'):
        attention_maps(wrapped(vit()), torch.randn(1, 3, 224, 224))


def test_windows_are_refused():
    vit = timm.create_model('vit_tiny_patch16_224', **SMALL)
    backbone = wrapped(vit, window_size=2, window_block_indexes=(0,))
    with pytest.raises(ValueError, match='does so 1 times in 2 blocks'):
        attention_maps(backbone, IMAGES)
