"""Resample position tables and feature maps, grid to grid; no square is assumed. Pure."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Grid = tuple[int, int]


def _let_compiled_sizes_vary() -> None:
    """Let compiled code resample positions to sizes that vary, and learn them.

    PyTorch 2.11 has the shape of this gradient for fixed sizes only, and that of its bilinear
    sister, which is the same, for all.
    """
    aten, key = torch.ops.aten, torch._C.DispatchKey.Meta
    gradient = aten._upsample_bicubic2d_aa_backward.default
    shape = aten._upsample_bilinear2d_aa_backward.default.py_kernels.get(key)
    if shape is not None and key not in gradient.py_kernels:
        gradient.py_impl(key)(shape)


_let_compiled_sizes_vary()


def cells(size: Grid, steps: Grid) -> Grid:
    """(h, w) of the cells that cover an image, each of size `steps`; also for traced sizes."""
    return tuple((side + step - 1) // step for side, step in zip(size, steps, strict=True))


def widened(table: Tensor, old: Grid, new: Grid) -> Tensor:
    """(..., prefix + h*w, C) of a grid with zeros below and right, for a larger one."""
    num_prefix = table.shape[-2] - old[0] * old[1]
    maps = table[..., num_prefix:, :].unflatten(-2, old)
    maps = F.pad(maps, (0, 0, 0, new[1] - old[1], 0, new[0] - old[0]))
    return torch.cat([table[..., :num_prefix, :], maps.flatten(-3, -2)], dim=-2)


def resample_positions(
    table: Tensor,
    old: Grid,
    new: Grid,
    *,
    num_prefix: int = 0,
    mode: str = 'bicubic',
    antialias: bool = True,
    offset: float = 0.0,
    align_corners: bool = False,
) -> Tensor:
    """Resample a learned position table from one patch grid to another.

    Args:
        table: (1, num_prefix + h*w, C), the prefix rows are kept as they are; or (1, h, w, C).
        old: (h, w) of the table.
        new: (h, w) wanted.
        num_prefix: Rows in front that belong to CLS and register tokens.
        mode: `'bicubic'` or `'bilinear'`.
        antialias: Low-pass filter when shrinking, as timm does. Most authors' own code does not.
        offset: Added to the new grid before the scale is taken, as in DINO and DINOv2 (0.1 there).
        align_corners: Keep the corner positions where they are, as torchvision does.

    Returns:
        (1, num_prefix + new_h*new_w, C) or (1, new_h, new_w, C) in the table's dtype; the table
        itself for equal grids.
    """
    if table.ndim == 4:
        options = dict(antialias=antialias, offset=offset, align_corners=align_corners, mode=mode)
        flat = resample_positions(table.flatten(1, 2), old, new, **options)
        return flat.unflatten(1, new)  # (1, h*w, C) -> (1, h, w, C)
    if table.shape[1] != num_prefix + math.prod(old):
        raise ValueError(
            f'a position table of {table.shape[1]} rows does not hold {num_prefix} prefix rows and '
            f'a grid of {old[0]}x{old[1]}'
        )
    # in an exported graph for any size, equal ones are no case of their own
    if not torch.compiler.is_exporting() and tuple(old) == tuple(new):
        return table
    prefix, grid = table[:, :num_prefix], table[:, num_prefix:]
    # (1, h*w, C) -> (1, C, h, w); interpolation of half types is done in fp32
    grid = grid.float().reshape(1, *old, -1).permute(0, 3, 1, 2)
    if offset:
        scale = tuple((n + offset) / o for n, o in zip(new, old, strict=True))
        grid = F.interpolate(grid, scale_factor=scale, mode=mode, antialias=antialias)
    else:
        grid = F.interpolate(
            grid, size=new, mode=mode, antialias=antialias, align_corners=align_corners
        )
    # (1, C, h, w) -> (1, h*w, C)
    grid = grid.permute(0, 2, 3, 1).reshape(1, math.prod(new), -1)
    return torch.cat([prefix, grid.to(table.dtype)], dim=1)


def resample_relative(table: Tensor, num_rows: int) -> Tensor:
    """Resample one axis of decomposed relative positions, linearly as ViTDet does.

    The table (2*n - 1, d), a row for each distance along the axis, becomes (num_rows, d).
    """
    if len(table) == num_rows:
        return table
    resized = F.interpolate(table.float().T[None], size=num_rows, mode='linear')  # (1, d, rows)
    return resized[0].T.to(table.dtype)


def resample_map(maps: Tensor, size: Grid, step: tuple[float, float]) -> Tensor:
    """Sample feature maps bilinearly on another raster with the same origin.

    Output cell `i` lies at `(i + 0.5) * step - 0.5` in source cells, clamped to the border. Unlike
    `F.interpolate` the step is given, not derived from the two sizes, so that a map whose last
    cells cover padding keeps its geometry.

    Args:
        maps: (B, C, h, w).
        size: (H, W) of the output.
        step: Source cells per output cell, (vertical, horizontal).
    """
    rows = bilinear_weights(size[0], maps.shape[-2], step[0], maps.device).to(maps)  # (H, h)
    columns = bilinear_weights(size[1], maps.shape[-1], step[1], maps.device).to(maps)  # (W, w)
    return rows @ (maps @ columns.T)


def resample_antialiased(maps: Tensor, size: Grid) -> Tensor:
    """`F.interpolate` with `mode='bicubic', antialias=True`, by two matrix products.

    ONNX has no operator that does the same: onnxruntime's `Resize` differs by 1 %. The weights for
    traced sizes are part of the graph.
    """
    rows = _antialiased_weights(size[0], maps.shape[-2], maps.device).to(maps)  # (H, h)
    columns = _antialiased_weights(size[1], maps.shape[-1], maps.device).to(maps)  # (W, w)
    return rows @ (maps @ columns.T)


def _antialiased_weights(num_out: int, num_in: int, device: torch.device) -> Tensor:
    """(num_out, num_in) matrix whose rows hold a cubic filter (a = -0.5), widened to shrink."""
    step = torch.ones((), device=device) * num_in / num_out  # symbolic sizes stay so
    at = (torch.arange(num_out, device=device) + 0.5) * step - 0.5
    x = (at[:, None] - torch.arange(num_in, device=device)).abs() / step.clamp(min=1)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = near.where(x < 1, far.where(x < 2, 0.0))
    return weights / weights.sum(dim=1, keepdim=True)


def bilinear_weights(
    num_out: int, num_in: int, step: float, device: torch.device | None = None
) -> Tensor:
    """(num_out, num_in) matrix whose rows hold the two weights of linear interpolation."""
    at = ((torch.arange(num_out, device=device) + 0.5) * step - 0.5).clamp(0, num_in - 1)
    distance = (at[:, None] - torch.arange(num_in, device=device)).abs()
    return (1 - distance).clamp(min=0)
