"""Attention in windows, over real pixels alone, with relative positions, in any layer.

A library's attention layer is run as it is, with its projections, norms and rotary positions; only
the `scaled_dot_product_attention` that it calls is carried out in another way. So one piece of code
serves every such layer, and none of its parameters changes its name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vit_backbones.position import Grid, resample_relative

REL_POS = ('rel_pos_h', 'rel_pos_w')  # detectron2's names, tables (2 * side - 1, head_dim)


class Attention(NamedTuple):
    """How the blocks of a plain ViT shall attend.

    Attributes:
        window: Side of windows in patches, 0 for none.
        blocks: Blocks that attend within windows.
        rel_pos: Whether each block has tables of decomposed relative positions.
        masked: Whether padding is kept out.
    """

    window: int = 0
    blocks: tuple[int, ...] = ()
    rel_pos: bool = False
    masked: bool = False


@dataclass(frozen=True)
class Layout:
    """How the tokens of one forward pass lie, and which of them a block lets see each other.

    Attributes:
        grid: (h, w) of the patches.
        num_prefix: Tokens P in front of them.
        masked: Whether patches that hold no pixel of their image are seen by nothing.
        cells: (h, w) of each image's own patches, top left in the grid; `None` if all fill it.
        window: Side of the windows in patches, 0 for none. One that covers the grid is the grid.
    """

    grid: Grid
    num_prefix: int
    masked: bool = False
    cells: tuple[Grid, ...] | None = None
    window: int = 0
    _keys: dict[object, Tensor] = field(default_factory=dict, init=False, compare=False)

    @cached_property
    def whole(self) -> 'Layout':
        """The same tokens without windows."""
        return replace(self, window=0)

    @property
    def sides(self) -> Grid:
        """(rows, columns) of a window."""
        return (self.window, self.window) if 0 < self.window < max(self.grid) else self.grid

    @property
    def changes_nothing(self) -> bool:
        """Whether every token sees every other."""
        return self.sides == self.grid and self.cells is None

    @property
    def _fills(self) -> bool:
        """Whether the grid is made of whole windows."""
        return all(c * s == g for c, s, g in zip(self._counts, self.sides, self.grid, strict=True))

    @property
    def _counts(self) -> Grid:
        """Windows (down, across)."""
        return tuple(-(-g // s) for g, s in zip(self.grid, self.sides, strict=True))

    def padded(self, x: Tensor) -> Tensor:
        """(..., P + h*w, C) to whole windows with zeros below and right, (..., P + H*W, C)."""
        if self._fills:
            return x
        num_prefix = x.shape[-2] - self.grid[0] * self.grid[1]
        maps = x[..., num_prefix:, :].unflatten(-2, self.grid)
        (down, across), (rows, columns) = self._counts, self.sides
        below, right = down * rows - self.grid[0], across * columns - self.grid[1]
        maps = F.pad(maps, (0, 0, 0, right, 0, below))
        return torch.cat([x[..., :num_prefix, :], maps.flatten(-3, -2)], dim=-2)

    def cropped(self, x: Tensor) -> Tensor:
        """Back from `padded`; of (..., H*W, C) as well."""
        if self._fills:
            return x
        full = tuple(c * s for c, s in zip(self._counts, self.sides, strict=True))
        num_prefix = x.shape[-2] - full[0] * full[1]
        maps = x[..., num_prefix:, :].unflatten(-2, full)[..., : self.grid[0], : self.grid[1], :]
        return torch.cat([x[..., :num_prefix, :], maps.flatten(-3, -2)], dim=-2)

    def split(self, x: Tensor) -> Tensor:
        """(B, heads, H*W, d) to windows, (B * n, heads, rows * columns, d)."""
        (down, across), (rows, columns) = self._counts, self.sides
        parts = x.unflatten(2, (down, rows, across, columns))
        # (B, heads, down, rows, across, columns, d) -> (B, down, across, heads, rows, columns, d)
        return parts.permute(0, 2, 4, 1, 3, 5, 6).flatten(0, 2).flatten(2, 3)

    def joined(self, x: Tensor) -> Tensor:
        """Back from `split`."""
        (down, across), sides = self._counts, self.sides
        parts = x.unflatten(2, sides).unflatten(0, (-1, down, across))
        # (B, down, across, heads, rows, columns, d) -> (B, heads, down, rows, across, columns, d)
        return parts.permute(0, 3, 1, 4, 2, 5, 6).flatten(2, 5)

    def spread(self, prefix: Tensor) -> Tensor:
        """(B, heads, P, d) for each window, (B * n, heads, P, d)."""
        down, across = self._counts
        return prefix.repeat_interleave(down * across, dim=0)

    def keys(self, batch: int, device: torch.device) -> Tensor | None:
        """(B * n, 1, 1, P + rows * columns): which keys a window's patches may see; `None`: all.

        A window without any real patch sees everything; nobody looks at it.
        """
        if not self.masked or (self.cells is None and self._fills):
            return None
        if (batch, device) not in self._keys:  # of all blocks
            real = inside(self.cells or (self.grid,) * batch, self.grid, device)
            seen = self.split(self.padded(real.flatten(1)[:, None, :, None]))  # (B*n, 1, N, 1)
            seen = seen | ~seen.any(dim=2, keepdim=True)
            self._keys[batch, device] = F.pad(seen.mT, (self.num_prefix, 0), value=True)
        return self._keys[batch, device]


def inside(sizes: Sequence[Grid], shape: Grid, device: torch.device) -> Tensor:
    """(B, *shape), whether a cell lies inside of its image, in the top left corner."""
    (rows, columns), (height, width) = torch.tensor(sizes, device=device).T, shape
    down = torch.arange(height, device=device) < rows[:, None]
    across = torch.arange(width, device=device) < columns[:, None]
    return down[:, :, None] & across[:, None, :]


class Around(nn.Module):
    """Stands in for a block's attention layer in one forward pass.

    Args:
        attn: The library's layer; its parameters `REL_POS`, if there are, are used.
        layout: Of the tokens.
    """

    def __init__(self, attn: nn.Module, layout: Layout) -> None:
        super().__init__()
        self.attn, self.layout = attn, layout

    @torch.compiler.disable  # Dynamo loses the mode below
    def forward(self, x: Tensor, rope: Tensor | None = None, **options: object) -> Tensor:
        """(B, P + h*w, C) to the same shape, as the layer itself."""
        if rope is not None:
            options['rope'] = self.layout.padded(rope)
        tables = [getattr(self.attn, name) for name in REL_POS if hasattr(self.attn, name)]
        with _Instead(self.layout, tables):
            return self.layout.cropped(self.attn(self.layout.padded(x), **options))


class _Instead(TorchFunctionMode):
    """Carries out `scaled_dot_product_attention` as a layout wants it."""

    def __init__(self, layout: Layout, tables: list[Tensor]) -> None:
        super().__init__()
        self.layout, self.tables = layout, tables

    def __torch_function__(
        self,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            return _attend(self.layout, self.tables, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _attend(
    layout: Layout,
    tables: list[Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: None = None,
    **options: object,
) -> Tensor:
    """(B, heads, P + H*W, d) each; patches see a window and the prefix, the prefix all."""
    num_prefix = layout.num_prefix
    q, k, v = (layout.split(x[:, :, num_prefix:]) for x in (query, key, value))
    mask = layout.keys(len(query), query.device)
    if tables:
        bias = F.pad(_relative_bias(q, tables, layout), (num_prefix, 0))
        mask = bias if mask is None else bias.masked_fill(~mask, -torch.inf)
    if num_prefix:
        k, v = (
            torch.cat([layout.spread(x[:, :, :num_prefix]), patches], dim=2)
            for x, patches in ((key, k), (value, v))
        )
    patches = layout.joined(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **options))
    if not num_prefix:
        return patches
    # padding of windows is no token
    seen = layout.whole.keys(len(query), query.device)
    key, value = layout.cropped(key), layout.cropped(value)
    prefix = F.scaled_dot_product_attention(
        query[:, :, :num_prefix], key, value, attn_mask=seen, **options
    )
    return torch.cat([prefix, patches], dim=2)


def _relative_bias(query: Tensor, tables: list[Tensor], layout: Layout) -> Tensor:
    """(B, heads, N, N), of the queries (B, heads, N, d) themselves, rows and columns apart.

    Source: Li et al., MViTv2 (arXiv 2112.01526), as used in ViTDet (arXiv 2203.16527).
    """
    maps = query.unflatten(2, layout.sides)
    owns = zip(*(layout.cells or [layout.grid]), strict=True)  # rows, columns of each image
    of_rows, of_columns = (
        # a table of windows is for these, whatever the images
        _by_distance(table, side, [len(table) // 2 + 1] if layout.window else own).to(query)
        for table, side, own in zip(tables, layout.sides, owns, strict=True)
    )
    along_rows = torch.einsum('bnhwd,bhkd->bnhwk', maps, of_rows)[..., :, None]
    along_columns = torch.einsum('bnhwd,bwkd->bnhwk', maps, of_columns)[..., None, :]
    return (along_rows + along_columns).flatten(-2).flatten(2, 3)


def _by_distance(table: Tensor, side: int, owns: Sequence[int]) -> Tensor:
    """(images, side, side, d), by query and key: a table resampled to each image's own side."""
    at = torch.arange(side, device=table.device)
    distances, of = at[:, None] - at, {}
    for own in set(owns):
        fitted = resample_relative(table, 2 * own - 1)
        of[own] = fitted[distances.clamp(1 - own, own - 1) + own - 1]
    return torch.stack([of[own] for own in owns])
