"""All windows of a block in one call, and one row of windows after the other."""

import pytest
import torch
from redraw import backbone, error, images

from vit_backbones.attention.windows import in_one_call, one_call
from vit_backbones.benchmark.counting import counted
from vit_backbones.benchmark.measuring import peak_memory

BLOCKS = (0, 1, 3, 4, 6, 7, 9, 10)  # ViTDet's
SIZES = ((64, 80), (128, 160), (176, 256))  # that windows of 3 do not fill
PLAIN, ROTARY = 'vit_tiny_patch16_224', 'vit_small_patch16_dinov3'


def operators(name, sizes=SIZES, **options):
    """Of a forward pass over two images of each size, all windows in one call."""
    vit = backbone(
        name, depth=12, norm='none', timm_options=dict(embed_dim=24, num_heads=3), **options
    )
    counts = []
    for size in sizes:
        if vit.masks_padding:
            vit.set_image_sizes([size, (size[0] - 30, size[1] - 17)])
        with torch.no_grad(), in_one_call(True):
            counts.append(counted(lambda: vit(images(*size, batch=2))).operators)  # noqa: B023
    return counts


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        (PLAIN, dict(with_cls_token=False)),
        (PLAIN, {}),
        (ROTARY, {}),
    ],
)
def test_windows_take_at_most_twice_the_operators_at_every_size(name, options):
    (everything, *others) = operators(name, **options)
    assert others == [everything] * 2
    (few, *others) = operators(name, **options, window_size=3, window_block_indexes=BLOCKS)
    assert others == [few] * 2
    assert everything < few <= 2 * everything


@pytest.mark.parametrize(
    'options', [dict(use_rel_pos=True), dict(mask_padding=True)], ids=['positions', 'mask']
)
def test_operators_do_not_grow_with_the_image(options):
    counts = operators(PLAIN, **options, window_size=3, window_block_indexes=BLOCKS)
    assert len(set(counts)) == 1


@pytest.mark.parametrize('name', [PLAIN, ROTARY, 'vit_base_patch16_siglip_224'])
@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('rel_pos', [False, True])
def test_both_ways_are_equal(name, masked, rel_pos):
    """Outputs and gradients, of windows that the grid does not fill."""
    options = dict(window_size=3, window_block_indexes=(0,), use_rel_pos=rel_pos)
    vit = backbone(name, depth=2, norm='none', mask_padding=masked, **options)
    x = images(80, 112, batch=2).requires_grad_()
    vit.set_image_sizes([(80, 112), (50, 90)] if masked else None)
    found = []
    for choice in (True, False):
        vit.zero_grad()
        with in_one_call(choice):
            out = vit(x)[0]
            out.square().mean().backward()
        found.append([out.detach()] + [p.grad.clone() for p in vit.parameters()])
    for one, other in zip(*found, strict=True):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max()


def test_the_rule_asks_for_the_device():
    assert [one_call(torch.device(name)) for name in ('cuda', 'cpu')] == [True, False]
    with in_one_call(True):
        assert one_call(torch.device('cpu'))
        with in_one_call(False):
            assert not one_call(torch.device('cuda'))
    assert not one_call(torch.device('cpu'))


@torch.no_grad()
@pytest.mark.parametrize('choice', [True, False])
def test_windows_make_the_calls_of_their_way(choice):
    """Of 3 x 4 windows, with a prefix whose queries take one more call."""
    vit = backbone(depth=1, norm='none', window_size=2, window_block_indexes=(0,))
    x = images(96, 128)
    expected = vit(x)[0]
    with torch.profiler.profile() as profiler, in_one_call(choice):
        out = vit(x)[0]
    names = [each.name for each in profiler.events()]
    assert names.count('aten::scaled_dot_product_attention') == (2 if choice else 4)
    assert error(out, expected) <= 1


@torch.no_grad()
def test_a_prefix_costs_little_memory_on_a_cpu():
    """No keys are copied once more for its queries."""
    x, peaks = images(224, 224), []
    for options in (dict(with_cls_token=False), {}):
        small = dict(depth=2, timm_options=dict(mlp_ratio=0.5), norm='none')
        vit = backbone(window_size=7, window_block_indexes=(0, 1), **small, **options)
        vit(x)
        peaks.append(peak_memory(lambda: vit(x), x.device))  # noqa: B023
    assert peaks[1] <= 1.2 * peaks[0]
