"""Images of any size: laws of padding and of the maps' sizes, over sizes, patches and models."""

import math
from functools import cache, partial

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from redraw import TINY, backbone, images, pad, redraw

from vit_backbones import ViTFeatBackbone
from vit_backbones.sources.timm_build import build_timm

# By the number of their prefix tokens
PLAIN = {
    0: 'vit_base_patch16_siglip_224',
    1: TINY,
    2: 'deit_tiny_distilled_patch16_224',
    5: 'vit_small_patch16_dinov3',
}
sides = st.integers(1, 70)
sizes = st.tuples(sides, sides)
patches = st.tuples(*[st.sampled_from([7, 12, 16])] * 2)
few = settings(max_examples=25, deadline=None, derandomize=True)


@cache
def plain(num_prefix=1, patch=(16, 16), channels=3):
    """One block of a plain ViT."""
    options = dict(patch_size=patch, in_channels=channels, out_type='raw')
    return backbone(PLAIN[num_prefix], depth=1, width=24, **options)


@cache
def stages():
    """A model with strides of 4, 8, 16 and 32."""
    build = partial(build_timm, more=dict(depths=(1, 1, 1, 1), embed_dims=(8, 16, 40, 64)))
    return redraw(ViTFeatBackbone('pvt_v2_b0', source=build, out_indices=(0, 1, 2, 3))).eval()


def cells(size, steps):
    return tuple(math.ceil(side / step) for side, step in zip(size, steps, strict=True))


@few
@given(
    size=sizes,
    patch=patches,
    num_prefix=st.sampled_from(sorted(PLAIN)),
    channels=st.sampled_from([1, 3, 5]),
)
@torch.no_grad()
def test_any_image_is_as_good_as_the_same_with_zeros_to_the_patch(
    size, patch, num_prefix, channels
):
    vit, x = plain(num_prefix, patch, channels), images(*size, channels=channels)
    vit.out_type = 'raw'
    tokens = vit(x)[0]
    assert torch.equal(tokens, vit(pad(x, *patch))[0])
    rows, columns = cells(size, patch)
    assert tokens.shape == (1, num_prefix + rows * columns, 24)
    vit.out_type = 'featmap'
    # (B, h*w, C) -> (B, C, h, w)
    expected = tokens[:, num_prefix:].mT.unflatten(2, (rows, columns))
    assert torch.equal(vit(x)[0], expected)
    assert vit.strides == ((patch[0],) if patch[0] == patch[1] else (patch,))


@few
@given(size=sizes, patch=patches)
@torch.no_grad()
def test_each_cell_comes_from_its_own_pixels(size, patch):
    """A patch embedding that takes means, and no block: the map is the picture, smaller."""
    vit = backbone(depth=1, width=24, patch_size=patch, norm='none')
    vit.vit.patch_embed.proj.weight.fill_(1 / (3 * math.prod(patch)))
    for tensor in (vit.vit.patch_embed.proj.bias, vit.vit.pos_embed):
        tensor.zero_()
    vit.vit.blocks[0].forward = lambda tokens: tokens
    x = images(*size)
    means = F.avg_pool2d(pad(x, *patch).mean(1, keepdim=True), patch)
    torch.testing.assert_close(vit(x)[0], means.expand(-1, 24, -1, -1))


@few
@given(size=sizes)
@torch.no_grad()
def test_stages_are_padded_to_the_largest_stride(size):
    x = images(*size)
    maps, expected = stages()(x), stages()(pad(x, 32))
    rows, columns = cells(size, (32, 32))
    for stride, given_map, padded_map in zip((4, 8, 16, 32), maps, expected, strict=True):
        assert torch.equal(given_map, padded_map)
        assert given_map.shape[-2:] == (rows * 32 // stride, columns * 32 // stride)


@few
@given(size=sizes, patch=patches, stride=st.integers(3, 33))
@torch.no_grad()
def test_out_stride_leaves_out_what_lies_behind_the_image(size, patch, stride):
    """Exactly ceil(H / stride) rows, each where it is in the map of the padded image."""
    vit, x = plain(1, patch), images(*size)
    vit.out_type, vit.out_stride = 'featmap', stride
    try:
        rows, columns = cells(size, (stride, stride))
        (out,) = vit(x)
        assert out.shape == (1, 24, rows, columns)
        torch.testing.assert_close(out, vit(pad(x, *patch))[0][:, :, :rows, :columns])
        assert vit.strides == (stride,)
    finally:
        vit.out_stride = None


@few
@given(size=sizes, side=st.sampled_from([7, 12, 16]))
@torch.no_grad()
def test_out_stride_of_the_patch_changes_nothing(size, side):
    vit, x = plain(1, (side, side)), images(*size)
    vit.out_type = 'featmap'
    before = vit(x)[0]
    vit.out_stride = side
    try:
        torch.testing.assert_close(vit(x)[0], before)
    finally:
        vit.out_stride = None
