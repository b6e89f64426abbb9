"""SimpleFeaturePyramid and LN2d against computations written out here."""

from collections.abc import Iterator, Sequence
from itertools import permutations

import pytest
import torch
from detectron2_written_out import reference_level, reference_norm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope, Registry
from torch import Tensor, nn

from vit_backbones.necks import LN2d, SimpleFeaturePyramid


def redraw(module: nn.Module) -> nn.Module:
    """Draw matrices with std 1/sqrt(fan_in), and norms and biases off their defaults."""
    generator = torch.Generator().manual_seed(0)
    for name, param in module.named_parameters():
        noise = torch.randn(param.shape, generator=generator, dtype=param.dtype)
        if param.ndim > 1:
            fan_in = param[0].numel() if name.split('.')[2] != 'rescale' else param.shape[0]
            param.data = noise / fan_in**0.5
        else:
            param.data = 0.3 * noise + name.endswith('norm.weight')
    return module


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


@pytest.mark.parametrize(
    ('dtype', 'tolerance'), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=['fp32', 'fp64']
)
def test_equals_detectron2_on_one_map(dtype: torch.dtype, tolerance: float) -> None:
    neck = redraw(SimpleFeaturePyramid(64, 32).to(dtype))
    x = draw(2, 64, 32, 40, dtype=dtype)
    for stride, out in zip((4, 8, 16, 32), neck((x,)), strict=True):
        expected = reference_level(neck, stride, x)
        assert (out - expected).abs().max() < tolerance * max(1, expected.abs().max())


def test_has_detectron2s_parameters_only() -> None:
    neck = SimpleFeaturePyramid(64, 32)
    up = (64 * 32 * 4 + 32) + 2 * 32 + (32 * 16 * 4 + 16) + (64 * 32 * 4 + 32)
    convs = sum(width * 32 + 32 * 32 * 9 + 4 * 32 for width in (16, 32, 64, 64))
    assert sum(param.numel() for param in neck.parameters()) == up + convs


def test_each_level_from_its_own_map_shallow_to_fine() -> None:
    neck = redraw(SimpleFeaturePyramid([64] * 4, 32))
    maps = draw(4, 1, 64, 6, 10).unbind()
    for stride, source, out in zip((4, 8, 16, 32), maps, neck(maps), strict=True):
        torch.testing.assert_close(out, reference_level(neck, stride, source))


def test_hierarchical_maps_are_not_rescaled() -> None:
    strides, channels = (4, 8, 16, 32), (8, 16, 32, 64)
    neck = redraw(SimpleFeaturePyramid(channels, 16, in_strides=strides))
    maps = [draw(1, c, 96 // s, 160 // s) for c, s in zip(channels, strides, strict=True)]
    for stride, source, out in zip(strides, maps, neck(maps), strict=True):
        x = neck.levels[f'stride{stride}'].lateral(source)
        torch.testing.assert_close(out, neck.levels[f'stride{stride}'].output(x))


@pytest.mark.parametrize('num_inputs', [1, 3])
def test_order_of_strides_orders_the_outputs_only(num_inputs: int) -> None:
    maps = draw(num_inputs, 1, 16, 5, 7).unbind()
    neck = redraw(SimpleFeaturePyramid([16] * num_inputs, 8, out_strides=(8, 16, 32)))
    expected = dict(zip(neck.strides, neck(maps), strict=True))
    for order in permutations(neck.strides):
        other = SimpleFeaturePyramid([16] * num_inputs, 8, out_strides=order)
        other.load_state_dict(neck.state_dict())
        assert all(torch.equal(out, expected[s]) for s, out in zip(order, other(maps), strict=True))


@pytest.mark.parametrize('size', [(15, 19), (16, 20), (1, 1), (3, 33)])
@pytest.mark.parametrize('in_stride', [8, 16, 32])
def test_sizes_cover_the_whole_map(size: tuple[int, int], in_stride: int) -> None:
    strides = (2, 4, 8, 16, 32, 64)
    neck = SimpleFeaturePyramid(32, 4, in_strides=in_stride, out_strides=strides)
    sizes = [tuple(out.shape[2:]) for out in neck([draw(1, 32, *size)])]
    assert sizes == [tuple(-(-n * in_stride // s) for n in size) for s in strides]


def test_last_row_and_column_of_an_odd_map_reach_the_coarse_level() -> None:
    neck = SimpleFeaturePyramid(8, 4, out_strides=(32, 64))
    corner = torch.zeros(1, 8, 5, 7)
    corner[..., -1, -1] = torch.arange(8.0)
    zeros = neck((torch.zeros(1, 8, 5, 7),))
    for out, zero in zip(neck((corner,)), zeros, strict=True):
        assert not torch.equal(out[..., -1, -1], zero[..., -1, -1])


def test_eight_times_up_halves_the_channels_thrice() -> None:
    layers = SimpleFeaturePyramid(32, 8, out_strides=(2,)).levels.stride2.rescale
    names = [type(layer).__name__ for layer in layers]
    assert names == ['ConvTranspose2d', 'LN2d', 'GELU'] * 2 + ['ConvTranspose2d']
    assert [layer.out_channels for layer in layers[::3]] == [16, 8, 4]


def test_extra_outputs_subsample_the_coarsest_level() -> None:
    neck = SimpleFeaturePyramid(16, 8, out_strides=(32, 8, 16), num_outs=5)
    p5, _, _, p6, p7 = neck((draw(1, 16, 18, 27),))
    assert neck.strides == (32, 8, 16, 64, 128)
    assert torch.equal(p6, p5[..., ::2, ::2])
    assert torch.equal(p7, p5[..., ::4, ::4])


def test_public_attributes() -> None:
    neck = SimpleFeaturePyramid(64, 32, in_strides=[4, 8, 16, 32])
    assert (neck.in_channels, neck.in_strides) == ((64,) * 4, (4, 8, 16, 32))
    assert (neck.out_channels, neck.strides) == (32, (4, 8, 16, 32))


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(in_strides=14), r'\(14,\).*\[4, 8, 16, 32\].*power.*`out_stride=16`'),
        (dict(in_strides=0), r'^in_strides must be at least 1, got 0$'),
        (dict(out_strides=(8, 12)), r'\(16,\).*\[8, 12\].*powers of two'),
        (dict(out_strides=(8, 16, 8)), r'out_strides=\(8, 16, 8\).*different'),
        (dict(out_strides=()), r'^out_strides is empty: give at least one int$'),
        (dict(out_strides=(0, 4)), r'^out_strides must be at least 1, got 0$'),
        (dict(in_channels=[16] * 3), r'3 inputs.*4 levels.*1 or 4'),
        (dict(in_channels=[16] * 4, in_strides=(8, 16)), r'in_channels.*in_strides.*4 and 2'),
        (dict(in_channels=[], in_strides=16), r'^in_channels is empty: give at least one int$'),
        (dict(in_strides=(32, 16, 8, 4)), r'\(32, 16, 8, 4\) must ascend'),
        (dict(num_outs=3), r'num_outs=3.*at least 4'),
    ],
)
def test_bad_arguments(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimpleFeaturePyramid(**{'in_channels': 16, **kwargs})


@pytest.mark.parametrize(
    ('inputs', 'message'),
    [
        ([torch.zeros(1, 16, 4, 4)] * 2, r'expected 1 .*\(16,\), got 2'),
        ([], r'expected 1 .*got 0'),
        ([torch.zeros(1, 24, 4, 4)], r'C = \(16,\).*\(1, 24, 4, 4\)'),
        ([torch.zeros(1, 16)], r"\(1, 16\).*'featmap'"),
    ],
)
def test_bad_inputs(inputs: Sequence[Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimpleFeaturePyramid(16)(inputs)


def test_bare_tensor() -> None:
    with pytest.raises(TypeError, match=r'\(1, 16, 4, 4\): pass \(tensor,\)'):
        SimpleFeaturePyramid(16)(torch.zeros(1, 16, 4, 4))


@pytest.mark.parametrize(
    ('norm_cfg', 'norm', 'bias'),
    [
        (dict(type='LN2d'), LN2d, False),
        (dict(type='GN', num_groups=2), nn.GroupNorm, False),
        (dict(type='BN'), nn.BatchNorm2d, False),
        (dict(type='SyncBN'), nn.SyncBatchNorm, False),
        (None, nn.Identity, True),
    ],
)
def test_norm_cfg(norm_cfg: dict | None, norm: type, bias: bool) -> None:
    neck = SimpleFeaturePyramid(16, 8, norm_cfg=norm_cfg).eval()
    assert isinstance(neck.levels.stride4.rescale[1], norm)
    assert isinstance(getattr(neck.levels.stride8.output, 'norm', nn.Identity()), norm)
    assert (neck.levels.stride8.output.conv.bias is not None) == bias
    assert all(out.isfinite().all() for out in neck([draw(1, 16, 3, 5)]))


def test_arguments_are_left_unchanged() -> None:
    norm_cfg, act_cfg = dict(type='LN2d', requires_grad=False), dict(type='ReLU')
    SimpleFeaturePyramid(16, norm_cfg=norm_cfg, act_cfg=act_cfg)
    assert norm_cfg == dict(type='LN2d', requires_grad=False)
    assert act_cfg == dict(type='ReLU')


def test_ln2d_keeps_its_eps_through_norm_cfg() -> None:
    norms = [m for m in SimpleFeaturePyramid(16).modules() if isinstance(m, LN2d)]
    assert {norm.eps for norm in norms} == {1e-6}


def test_activation_follows_both_convolutions() -> None:
    neck = SimpleFeaturePyramid(16, 8, act_cfg=dict(type='ReLU'))
    level = neck.levels.stride16
    lateral = level.lateral(draw(1, 16, 3, 5))
    assert lateral.min() == 0
    assert level.output(lateral).min() == 0


@pytest.mark.parametrize('in_channels', [16, [16, 24, 32, 64]])
def test_gradient_reaches_every_parameter(in_channels: int | list[int]) -> None:
    neck = redraw(SimpleFeaturePyramid(in_channels, 8))
    maps = [draw(2, c, 4, 6) for c in neck.in_channels]
    sum(out.square().sum() + out.sum() for out in neck(maps)).backward()
    assert [name for name, p in neck.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_outputs_are_contiguous() -> None:
    neck = SimpleFeaturePyramid(16, 8, num_outs=5)
    assert all(out.is_contiguous() for out in neck([draw(2, 16, 4, 6)]))


def test_init_weights_keeps_the_weights() -> None:
    neck = redraw(SimpleFeaturePyramid(16, 8))
    before = {name: param.clone() for name, param in neck.state_dict().items()}
    neck.init_weights()
    assert all(torch.equal(param, before[name]) for name, param in neck.state_dict().items())


@pytest.fixture
def foreign_scope() -> Iterator[Registry]:
    """A library's scope with an LN2d of its own, as mmpretrain's."""
    registry = Registry('model', parent=MODELS, scope='foreign')
    registry.register_module('LN2d', module=nn.GroupNorm)
    with DefaultScope.overwrite_default_scope('foreign'):
        yield registry
    MODELS.children.pop('foreign')


def test_builds_with_its_own_ln2d_in_a_foreign_scope(foreign_scope: Registry) -> None:
    neck = foreign_scope.build(dict(type='SimpleFeaturePyramid', in_channels=16, out_channels=8))
    assert isinstance(neck.levels.stride32.output.norm, LN2d)


def test_ln2d_is_registered_in_the_root() -> None:
    assert MODELS.build(dict(type='LN2d', num_channels=3)).eps == 1e-6


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_ln2d_equals_layer_norm_on_nhwc(memory_format: torch.memory_format) -> None:
    x = draw(2, 24, 5, 7).to(memory_format=memory_format).requires_grad_()
    norm = LN2d(24)
    norm.weight.data, norm.bias.data = draw(24), draw(24) - 1
    upstream = nn.LayerNorm(24, eps=1e-6)
    upstream.load_state_dict(norm.state_dict())
    expected = torch.stack([upstream(row) for row in x.movedim(1, -1).unbind(2)], 2).movedim(-1, 1)
    torch.testing.assert_close(norm(x), expected)
    grads = [torch.autograd.grad(out.pow(3).sum(), x)[0] for out in (norm(x), expected)]
    torch.testing.assert_close(*grads)


def test_ln2d_rounds_once_in_bf16() -> None:
    norm = LN2d(128).bfloat16()
    norm.weight.data, norm.bias.data = draw(128).bfloat16(), draw(128).bfloat16() - 1
    x = draw(2, 128, 9, 11).bfloat16() + 3
    exact = reference_norm(x.double(), norm.weight.double(), norm.bias.double())
    half_ulp = 2**-8 * exact.abs()
    assert ((norm(x).double() - exact).abs() <= half_ulp + 1e-5).all()


def test_ln2d_counts_as_a_norm_for_weight_decay() -> None:
    cfg = dict(
        optimizer=dict(type='SGD', lr=1, weight_decay=1), paramwise_cfg=dict(norm_decay_mult=0)
    )
    groups = build_optim_wrapper(LN2d(4), cfg).optimizer.param_groups
    assert [group['weight_decay'] for group in groups] == [0, 0]
