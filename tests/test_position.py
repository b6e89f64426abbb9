"""Resampling of position tables and maps against formulas and loops written out here."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from vit_backbones.position import (
    resample_antialiased,
    resample_map,
    resample_positions,
    resample_relative,
)

sides = st.integers(1, 12)
grids = st.tuples(sides, sides)
settings.register_profile('quick', max_examples=40, deadline=None, derandomize=True)
settings.load_profile('quick')


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@given(old=grids, new=grids, num_prefix=st.integers(0, 5), channels=st.integers(1, 4))
def test_positions_fill_the_new_grid_and_keep_the_prefix(old, new, num_prefix, channels):
    table = draw(1, num_prefix + math.prod(old), channels)
    out = resample_positions(table, old, new, num_prefix=num_prefix)
    assert out.shape == (1, num_prefix + math.prod(new), channels)
    assert torch.equal(out[:, :num_prefix], table[:, :num_prefix])


@given(grid=grids, offset=st.sampled_from([0.0, 0.1]))
def test_positions_of_the_same_grid_are_the_table_itself(grid, offset):
    table = draw(1, 1 + math.prod(grid), 2)
    assert resample_positions(table, grid, grid, num_prefix=1, offset=offset) is table


@given(old=grids, new=grids, antialias=st.booleans(), offset=st.sampled_from([0.0, 0.1]))
def test_constant_positions_stay_constant(old, new, antialias, offset):
    table = torch.full((1, math.prod(old), 2), 0.7)
    out = resample_positions(table, old, new, antialias=antialias, offset=offset)
    torch.testing.assert_close(out, torch.full_like(out, 0.7))


@given(old=grids, new=grids)
def test_rows_and_columns_are_treated_alike(old, new):
    table = draw(1, *old, 3)
    out = resample_positions(table.flatten(1, 2), old, new).reshape(1, *new, 3)
    turned = resample_positions(table.transpose(1, 2).flatten(1, 2), old[::-1], new[::-1])
    torch.testing.assert_close(out.transpose(1, 2).flatten(1, 2), turned)


@pytest.mark.parametrize(('old', 'new'), [((4, 16), (8, 8)), ((8, 8), (4, 16))])
def test_equal_counts_on_another_grid_are_resampled(old, new):
    table = draw(1, 64, 3)
    maps = table.reshape(1, *old, 3).permute(0, 3, 1, 2)
    expected = F.interpolate(maps, size=new, mode='bicubic', antialias=True)
    out = resample_positions(table, old, new)
    assert torch.equal(out.reshape(1, *new, 3).permute(0, 3, 1, 2), expected)
    assert not torch.equal(out, table)


@given(old=grids, new=st.tuples(st.integers(2, 12), st.integers(2, 12)))
def test_aligned_corners_stay_where_they_are(old, new):
    table = draw(1, math.prod(old), 3)
    out = resample_positions(table, old, new, antialias=False, align_corners=True)
    corners = [out.reshape(*new, 3)[i, j] for i in (0, -1) for j in (0, -1)]
    expected = [table.reshape(*old, 3)[i, j] for i in (0, -1) for j in (0, -1)]
    torch.testing.assert_close(corners, expected, rtol=1e-4, atol=1e-4)


def test_aligned_positions_of_a_line_are_another_line():
    """Cubic interpolation keeps lines, away from the border."""
    table = torch.arange(9.0)[None, :, None]
    out = resample_positions(table, (1, 9), (1, 17), antialias=False, align_corners=True)
    torch.testing.assert_close(out[0, 4:13, 0], torch.arange(2.0, 6.5, 0.5))


def test_half_positions_are_resampled_in_fp32():
    table = draw(1, 35, 4).bfloat16()
    expected = resample_positions(table.float(), (5, 7), (9, 4)).bfloat16()
    assert torch.equal(resample_positions(table, (5, 7), (9, 4)), expected)


def test_a_grid_that_is_not_the_tables_is_refused():
    with pytest.raises(ValueError, match='65 rows does not hold 1 prefix rows and a grid of 8x9'):
        resample_positions(draw(1, 65, 2), (8, 9), (4, 4), num_prefix=1)


@given(
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    factor=st.sampled_from([1, 2, 4]),
    shrink=st.booleans(),
)
def test_maps_equal_interpolate_where_sizes_divide(size, factor, shrink):
    large = tuple(factor * side for side in size)
    source, target = (large, size) if shrink else (size, large)
    maps = draw(2, 3, *source)
    step = factor if shrink else 1 / factor
    expected = F.interpolate(maps, size=target, mode='bilinear', align_corners=False)
    torch.testing.assert_close(resample_map(maps, target, (step, step)), expected)


@given(grid=grids, size=grids, steps=st.tuples(*[st.floats(0.2, 3)] * 2))
def test_maps_equal_a_loop_over_cells(grid, size, steps):
    maps = draw(1, 1, *grid)
    expected = torch.empty(size)
    for cell in torch.cartesian_prod(torch.arange(size[0]), torch.arange(size[1])).tolist():
        corners, weights = [], []
        for i, step, side in zip(cell, steps, grid, strict=True):
            at = min(max((i + 0.5) * step - 0.5, 0), side - 1)
            low = math.floor(at)
            corners.append((low, min(low + 1, side - 1)))
            weights.append((1 - at + low, at - low))
        expected[tuple(cell)] = sum(
            weights[0][a] * weights[1][b] * maps[0, 0, corners[0][a], corners[1][b]]
            for a in (0, 1)
            for b in (0, 1)
        )
    torch.testing.assert_close(
        resample_map(maps, size, steps)[0, 0], expected, rtol=1e-4, atol=1e-4
    )


def test_tables_with_rows_and_columns_equal_flat_ones():
    table = torch.randn(1, 5, 7, 3)
    out = resample_positions(table, (5, 7), (4, 9), mode='bilinear', antialias=False)
    flat = resample_positions(table.flatten(1, 2), (5, 7), (4, 9), mode='bilinear', antialias=False)
    assert out.shape == (1, 4, 9, 3)
    assert torch.equal(out.flatten(1, 2), flat)


def test_relative_positions_keep_a_line_and_their_own_length():
    table = torch.arange(7.0)[:, None].expand(7, 2)
    assert resample_relative(table, 7) is table
    out = resample_relative(table, 14)
    torch.testing.assert_close(out[1:-1, 0], torch.arange(12) / 2 + 0.25)
    assert resample_relative(table.half(), 13).dtype == torch.half


several = st.tuples(st.integers(2, 12), st.integers(2, 12))


@given(old=several, new=several)  # PyTorch 2.11 repeats the first row of maps of one column
def test_antialiased_resampling_by_matrices_is_that_of_torch(old, new):
    maps = draw(2, 3, *old)
    expected = F.interpolate(maps, size=new, mode='bicubic', antialias=True)
    torch.testing.assert_close(resample_antialiased(maps, new), expected, atol=1e-5, rtol=1e-5)


class Devices(TorchDispatchMode):
    """Where the tensors that operators make lie."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.found.add(out.device.type)
        return out


@pytest.mark.parametrize(
    'resample',
    [
        lambda maps: resample_map(maps, (4, 7), (0.5, 0.7)),
        lambda maps: resample_antialiased(maps, (4, 7)),
    ],
)
def test_maps_are_resampled_on_their_device(resample):
    maps = torch.zeros(1, 2, 3, 5, device='meta')
    with Devices() as devices:
        resample(maps)
    assert devices.found == {'meta'}


def test_compiled_positions_learn_at_sizes_that_vary():
    def gradient(run, x):
        table = draw(1, 26, 4).requires_grad_()
        (run(table, x) * torch.linspace(-1, 1, 4)).square().sum().backward()
        return table.grad

    def run(table, x):
        return resample_positions(table, (5, 5), tuple(x.shape), num_prefix=1)

    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend='aot_eager')
    for size in ((3, 7), (9, 4)):
        x = torch.zeros(size)
        assert torch.equal(gradient(compiled, x), gradient(run, x))
