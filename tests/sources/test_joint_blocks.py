"""Queries in the last blocks: equal to blocks called by hand with dense masks, for every source."""

import copy

import pytest
import torch
import torchvision
from redraw import backbone, images, redraw

from vit_backbones import ViTFeatBackbone

QUERIES, JOINT, SIZE = 6, 2, (70, 93)
SMALL = dict(depth=3, width=48)
TALL = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=2)
WIDE = dict(image_size=64, intermediate_size=64)


def encoder(model_type, **more):
    pytest.importorskip('transformers')
    config = dict(TALL, model_type=model_type, patch_size=16) | more
    return ViTFeatBackbone(config, source='transformers')


def of_torchvision(**options):
    vit = torchvision.models.VisionTransformer(64, 16, 3, 2, 32, 64)
    return ViTFeatBackbone.from_module(vit, **options)


def of_lightly():
    modules = pytest.importorskip('lightly.models.modules')
    return ViTFeatBackbone.from_module(modules.MAEBackbone(64, 16, 3, 2, 32, 64))


# Prefix tokens, and how to build it
KINDS = {
    'timm': (1, lambda: backbone(**SMALL)),
    'timm_channels': (1, lambda: backbone(**SMALL, in_channels=5)),
    'timm_fixed': (1, lambda: backbone(**SMALL, img_size=(72, 90), patch_size=(8, 10))),
    'no_cls': (0, lambda: backbone(**SMALL, with_cls_token=False)),
    'gap': (0, lambda: backbone('vit_base_patch16_siglip_gap_224', **SMALL)),
    'registers': (5, lambda: backbone('vit_small_patch14_reg4_dinov2', **SMALL)),
    'registers_no_cls': (
        4,
        lambda: backbone('vit_small_patch14_reg4_dinov2', **SMALL, with_cls_token=False),
    ),
    'clip': (1, lambda: backbone('vit_base_patch32_clip_224', **SMALL)),
    'dinov3': (5, lambda: backbone('vit_tiny_patch16_dinov3_qkvb', depth=3)),
    'dinov3_no_cls': (
        4,
        lambda: backbone('vit_tiny_patch16_dinov3_qkvb', depth=3, with_cls_token=False),
    ),
    'mixed': (1, lambda: backbone('vit_small_patch16_rope_mixed_224', depth=3)),
    'torchvision': (1, of_torchvision),
    'torchvision_no_cls': (0, lambda: of_torchvision(with_cls_token=False)),
    'lightly': (1, of_lightly),
    'lightly_timm': (1, lambda: ViTFeatBackbone('test_vit', source='lightly')),
    'sapiens': (
        1,
        lambda: ViTFeatBackbone(
            arch=dict(embed_dims=48, num_layers=3, num_heads=3, feedforward_channels=96)
        ),
    ),
    'hf_vit': (1, lambda: encoder('vit', **WIDE)),
    'hf_deit': (2, lambda: encoder('deit', **WIDE)),
    'hf_dinov2': (1, lambda: encoder('dinov2', patch_size=14, image_size=70)),
    'hf_registers': (5, lambda: encoder('dinov2_with_registers', patch_size=14, image_size=70)),
    'hf_dinov3': (5, lambda: encoder('dinov3_vit', num_register_tokens=4, **WIDE)),
    'hf_siglip': (0, lambda: encoder('siglip_vision_model', **WIDE)),
    'hf_siglip2': (0, lambda: encoder('siglip2_vision_model', num_patches=196)),
}


def ready(kind, num_blocks=JOINT):
    """A redrawn backbone in double precision whose last blocks take queries."""
    vit = redraw(KINDS[kind][1]()).double().eval()
    vit.prepare_joint(num_blocks)
    return vit


def drawn(*shape, seed=3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def inputs(vit, size=SIZE):
    x = images(*size, channels=vit.in_channels, batch=2).double()
    return x, drawn(QUERIES, vit.embed_dims)


def allowed(index, num_patches):
    """Another half of the patches for each block; none of them for the first query."""
    mask = drawn(2, QUERIES, num_patches, seed=10 + index) > 0
    mask[:, 0] = False
    return mask


def dense(mask, num_prefix):
    """(B, 1, N, N), whether a token attends to another."""
    first = QUERIES + num_prefix
    length = first + mask.shape[2]
    whole = torch.ones(len(mask), 1, length, length).bool()
    whole[:, 0, :QUERIES, first:] = mask
    return whole


def by_hand(block, x, whole, options):
    """A block's output by the library's own mask, which knows no queries."""
    if hasattr(block, 'self_attention'):  # torchvision's takes none
        heads = block.num_heads
        hidden = None if whole is None else (~whole).expand(-1, heads, -1, -1).flatten(0, 1)
        normed = block.ln_1(x)
        options = dict(attn_mask=hidden, need_weights=False)
        x = x + block.self_attention(normed, normed, normed, **options)[0]
        return x + block.mlp(block.ln_2(x))
    if 'rope' in options:  # timm's leaves out as many tokens as it counts
        shifted = copy.copy(block)
        shifted._modules = {**block._modules, 'attn': copy.copy(block.attn)}
        shifted.attn.num_prefix_tokens += QUERIES
        return shifted(x, attn_mask=whole, **options)
    if hasattr(block, 'attn'):
        return block(x, attn_mask=whole)
    return block(x, **{**options, 'attention_mask': whole})


def written_out(vit, x, extra, masked):
    """Tokens before each block with queries and after the last, normed."""
    source, inner, num_prefix = vit.source, vit.vit, vit.num_prefix_tokens
    x, grid, options = source.start(inner, vit._padded(x), 'timm')
    blocks, first = source.blocks(inner), vit.depth - JOINT
    for block, own in zip(blocks[:first], options[:first], strict=True):
        x = block(x, **own)
    x = torch.cat([torch.stack([extra, extra]), x], dim=1)
    seen = []
    for index, block in enumerate(blocks[first:]):
        seen.append(source.norm(inner)(x))
        mask = dense(allowed(index, grid[0] * grid[1]), num_prefix) if masked else None
        x = by_hand(block, x, mask, options[first + index])
    return [*seen, source.norm(inner)(x)]


def joined(vit, x, extra, masked):
    """The same by `joint`."""
    seen = []

    def before(index, joint):
        assert index == len(seen)
        seen.append(together(joint))
        return allowed(index, joint.tokens.patches.shape[1]) if masked else None

    last = vit.joint(x, extra, JOINT, before)
    return [*seen, together(last)]


def together(joint):
    return torch.cat([joint.extra, joint.tokens.prefix, joint.tokens.patches], dim=1)


def gradients(vit, outputs, extra):
    vit.zero_grad()
    weights = [drawn(*each.shape, seed=7) for each in outputs]
    sum((each * w).sum() for each, w in zip(outputs, weights, strict=True)).backward()
    own = {name: p.grad.clone() for name, p in vit.named_parameters() if p.requires_grad}
    own['extra'], extra.grad = extra.grad, None
    return own


@pytest.mark.parametrize('masked', [True, False])
@pytest.mark.parametrize('kind', KINDS)
def test_joint_equals_blocks_called_by_hand_with_dense_masks(kind, masked):
    vit = ready(kind)
    x, extra = inputs(vit)
    extra.requires_grad_()
    found, expected = joined(vit, x, extra, masked), written_out(vit, x, extra, masked)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    found, expected = gradients(vit, found, extra), gradients(vit, expected, extra)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('kind', KINDS)
@torch.no_grad()
def test_tokens_have_their_places(kind):
    vit = ready(kind)
    x, extra = inputs(vit)
    joint, (ph, pw) = vit.joint(x, extra, JOINT), vit.patch_size
    rows, columns = -(-SIZE[0] // ph), -(-SIZE[1] // pw)
    assert joint.extra.shape == (2, QUERIES, vit.embed_dims)
    assert joint.tokens.prefix.shape == (2, KINDS[kind][0], vit.embed_dims)
    assert joint.tokens.patches.shape == (2, rows * columns, vit.embed_dims)
    assert joint.tokens.grid == (rows, columns)
