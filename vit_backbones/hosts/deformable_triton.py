"""Triton kernels of multi-scale deformable attention: forward, and backward without a second one.

A program takes some rows, each a head of a query, with all their channels. Places, weights and sums
are fp32 whatever the type of the values. Offsets are 64 bits wide, and nothing depends on the sizes
of the maps but numbers that the kernels read, so that new sizes neither compile nor wait. Tensors
are as in `deformable_attention`, contiguous.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_SIZES = ('rows', 'rows_of_image', 'cells')  # one kernel for all of them
_ELEMENTS = 512  # values that a program holds at a time


@triton.jit
def _rows_of_program(
    rows: tl.tensor,
    rows_of_image: tl.tensor,
    cells: tl.tensor,
    HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Rows, which of them exist, and the row of values of each at cell 0."""
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    return row, row < rows, row // rows_of_image * cells * HEADS + row % HEADS


@triton.jit
def _grid(shapes: tl.tensor, level: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Height and width of a level."""
    return tl.load(shapes + 2 * level).to(tl.int32), tl.load(shapes + 2 * level + 1).to(tl.int32)


@triton.jit
def _pixel(places: tl.tensor, side: tl.tensor, inside: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Cell (left or upper) of a place along an axis, and how far the place is behind its centre."""
    # Places far outside are as good as those just outside, and fit an integer.
    at = tl.minimum(tl.maximum(tl.load(places, inside, 0.0) * side - 0.5, -2.0), side + 1.0)
    first = tl.floor(at)
    return first.to(tl.int32), at - first


@triton.jit
def _look(
    places: tl.tensor,
    weights: tl.tensor,
    look: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    inside: tl.tensor,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Weight of a place, its upper left cell, and how far it is behind that in x and y."""
    x, right = _pixel(places + 2 * look, width.to(tl.float32), inside)
    y, below = _pixel(places + 2 * look + 1, height.to(tl.float32), inside)
    return tl.load(weights + look, inside, 0.0), x, y, right, below


@triton.jit
def _share(behind: tl.tensor, step: tl.constexpr) -> tl.tensor:
    """Share of a cell along an axis, `step` cells after the first."""
    return behind * step + (1.0 - behind) * (1 - step)


@triton.jit
def _cell(
    first: tl.tensor,
    start: tl.tensor,
    x: tl.tensor,
    y: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    cells: tl.tensor,
    HEADS: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Row of values of a cell, and whether there is one."""
    cell = start + y.to(tl.int64) * width + x
    exists = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (cell < cells)
    return first + cell * HEADS, exists


@triton.jit(do_not_specialize=_SIZES)
def _attend(
    value: tl.tensor, shapes: tl.tensor, places: tl.tensor, weights: tl.tensor, out: tl.tensor,
    rows: tl.tensor, rows_of_image: tl.tensor, cells: tl.tensor,
    HEADS: tl.constexpr, CHANNELS: tl.constexpr, LEVELS: tl.constexpr, POINTS: tl.constexpr,
    BLOCK: tl.constexpr, PADDED: tl.constexpr,
) -> None:  # fmt: skip
    """Program `i`: rows from `i * BLOCK` of `out`."""
    row, inside, first = _rows_of_program(rows, rows_of_image, cells, HEADS, BLOCK)
    channel = tl.arange(0, PADDED)[None, :]
    total = tl.zeros((BLOCK, PADDED), tl.float32)
    start = tl.program_id(0).to(tl.int64) * 0
    for level in range(LEVELS):
        height, width = _grid(shapes, level)
        for point in tl.static_range(POINTS):
            look = (row * LEVELS + level) * POINTS + point
            weight, x, y, right, below = _look(places, weights, look, height, width, inside)
            for corner in tl.static_range(4):
                at, exists = _cell(
                    first, start, x + corner % 2, y + corner // 2, height, width, cells, HEADS
                )
                kept = (inside & exists)[:, None] & (channel < CHANNELS)
                seen = tl.load(value + at[:, None] * CHANNELS + channel, kept, 0.0)
                share = weight * _share(right, corner % 2) * _share(below, corner // 2)
                total += share[:, None] * seen.to(tl.float32)
        start += height.to(tl.int64) * width
    target = out + row[:, None] * CHANNELS + channel
    tl.store(target, total.to(out.dtype.element_ty), inside[:, None] & (channel < CHANNELS))


@triton.jit(do_not_specialize=_SIZES)
def _attend_backward(
    grad_out: tl.tensor, value: tl.tensor, shapes: tl.tensor, places: tl.tensor,
    weights: tl.tensor, grad_value: tl.tensor, grad_places: tl.tensor, grad_weights: tl.tensor,
    rows: tl.tensor, rows_of_image: tl.tensor, cells: tl.tensor,
    HEADS: tl.constexpr, CHANNELS: tl.constexpr, LEVELS: tl.constexpr, POINTS: tl.constexpr,
    BLOCK: tl.constexpr, PADDED: tl.constexpr,
) -> None:  # fmt: skip
    """Program `i`: rows from `i * BLOCK` of `grad_out`; cells are of all, so those are added to."""
    row, inside, first = _rows_of_program(rows, rows_of_image, cells, HEADS, BLOCK)
    channel = tl.arange(0, PADDED)[None, :]
    kept = inside[:, None] & (channel < CHANNELS)
    grad = tl.load(grad_out + row[:, None] * CHANNELS + channel, kept, 0.0).to(tl.float32)
    start = tl.program_id(0).to(tl.int64) * 0
    for level in range(LEVELS):
        height, width = _grid(shapes, level)
        for point in tl.static_range(POINTS):
            look = (row * LEVELS + level) * POINTS + point
            weight, x, y, right, below = _look(places, weights, look, height, width, inside)
            of_weight = tl.zeros((BLOCK,), tl.float32)
            of_x, of_y = of_weight, of_weight
            for corner in tl.static_range(4):
                along_x, along_y = _share(right, corner % 2), _share(below, corner // 2)
                at, exists = _cell(
                    first, start, x + corner % 2, y + corner // 2, height, width, cells, HEADS
                )
                kept = (inside & exists)[:, None] & (channel < CHANNELS)
                numbers = at[:, None] * CHANNELS + channel
                moved = (weight * along_x * along_y)[:, None] * grad
                tl.atomic_add(grad_value + numbers, moved, kept, sem='relaxed')
                seen = tl.load(value + numbers, kept, 0.0).to(tl.float32)
                agreement = tl.sum(seen * grad, 1)
                of_weight += along_x * along_y * agreement
                of_x += (corner % 2 * 2 - 1) * along_y * agreement
                of_y += (corner // 2 * 2 - 1) * along_x * agreement
            tl.store(grad_weights + look, of_weight, inside)
            tl.store(grad_places + 2 * look, of_x * weight * width, inside)
            tl.store(grad_places + 2 * look + 1, of_y * weight * height, inside)
        start += height.to(tl.int64) * width


def forward(value: Tensor, shapes: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    """(B, Q, heads * C) in the type of the values."""
    batch, _, heads, channels = value.shape
    out = value.new_empty(batch, places.shape[1], heads * channels)
    _run(_attend, (value, shapes, places, weights, out), value, places)
    return out


def backward(
    grad_out: Tensor, value: Tensor, shapes: Tensor, places: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of values, in their type, places and weights."""
    grads = torch.zeros_like(value, dtype=torch.float32), *map(torch.empty_like, (places, weights))
    _run(_attend_backward, (grad_out, value, shapes, places, weights, *grads), value, places)
    return grads[0].to(value.dtype), *grads[1:]


def options(channels: int) -> dict[str, int]:
    """How many rows a program takes, and a power of two of channels at least."""
    padded = max(16, triton.next_power_of_2(channels))
    return dict(PADDED=padded, BLOCK=max(1, _ELEMENTS // padded))


def _run(
    kernel: triton.JITFunction, tensors: tuple[Tensor, ...], value: Tensor, places: Tensor
) -> None:
    (_, cells, heads, channels), (batch, queries, _, levels, points, _) = value.shape, places.shape
    rows, fixed = batch * queries * heads, options(channels)
    if not rows:
        return
    fixed |= dict(HEADS=heads, CHANNELS=channels, LEVELS=levels, POINTS=points)
    with torch.cuda.device_of(value):  # Triton starts kernels on the current one
        kernel[(triton.cdiv(rows, fixed['BLOCK']),)](
            *tensors, rows, queries * heads, cells, **fixed
        )
