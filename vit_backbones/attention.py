"""Attention in windows, only over real pixels, with relative positions, in any layer.

A library's attention layer runs unchanged, with its projections, norms and rotary positions; only
the `scaled_dot_product_attention` that it calls is replaced. So one piece of code serves every such
layer, and no parameter changes its name.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vit_backbones.position import Grid, cells, resample_relative, widened

REL_POS = ('rel_pos_h', 'rel_pos_w')  # detectron2's names, tables (2 * side - 1, head_dim)


class Attention(NamedTuple):
    """How the blocks of a plain ViT attend."""

    window: int = 0  # side in patches, 0 for none
    blocks: tuple[int, ...] = ()  # those that attend within windows
    rel_pos: bool = False  # each block has tables of decomposed relative positions
    masked: bool = False  # padding is kept out


@dataclass(frozen=True)
class Layout:
    """The order of the tokens of one forward pass, and which of them see each other in a block.

    Attributes:
        grid: (h, w) of the patches.
        num_prefix: Tokens P in front of them.
        masked: Whether patches that hold no pixel of their image are hidden from all.
        cells: (h, w) of each image's own patches, top left in the grid; `None` if all fill it.
        window: Side of the windows in patches, 0 for none. One that covers the grid is the grid.
    """

    grid: Grid
    num_prefix: int
    masked: bool = False
    cells: tuple[Grid, ...] | None = None
    window: int = 0
    _masks: dict[object, Any] = field(default_factory=dict, init=False, compare=False)

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
        return self._full == self.grid

    @property
    def _counts(self) -> Grid:
        """Windows (down, across)."""
        return cells(self.grid, self.sides)

    @property
    def _full(self) -> Grid:
        """The smallest grid of whole windows that holds the grid."""
        return tuple(c * s for c, s in zip(self._counts, self.sides, strict=True))

    def padded(self, x: Tensor) -> Tensor:
        """(..., P + h*w, C) to whole windows with zeros below and right, (..., P + H*W, C)."""
        return x if self._fills else widened(x, self.grid, self._full)

    def cropped(self, x: Tensor) -> Tensor:
        """Undo `padded`; also for (..., H*W, C)."""
        if self._fills:
            return x
        full = self._full
        num_prefix = x.shape[-2] - full[0] * full[1]
        maps = x[..., num_prefix:, :].unflatten(-2, full)[..., : self.grid[0], : self.grid[1], :]
        return torch.cat([x[..., :num_prefix, :], maps.flatten(-3, -2)], dim=-2)

    def strips(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, heads, H*W, d) to rows of windows, (B, heads, rows * W, d) each.

        One after the other, they need little memory beside the tokens themselves.
        """
        return x.unflatten(2, (self._counts[0], -1)).unbind(2)

    def split(self, strip: Tensor) -> Tensor:
        """A row of windows to single ones, (B * across, heads, rows * columns, d)."""
        (_, across), (rows, columns) = self._counts, self.sides
        parts = strip.unflatten(2, (rows, across, columns))
        # (B, heads, rows, across, columns, d) -> (B, across, heads, rows, columns, d)
        return parts.permute(0, 3, 1, 2, 4, 5).flatten(0, 1).flatten(2, 3)

    def joined(self, windows: Tensor) -> Tensor:
        """Undo `split`."""
        parts = windows.unflatten(2, self.sides).unflatten(0, (-1, self._counts[1]))
        # (B, across, heads, rows, columns, d) -> (B, heads, rows, across, columns, d)
        return parts.permute(0, 2, 3, 1, 4, 5).flatten(2, 4)

    def spread(self, prefix: Tensor) -> Tensor:
        """(B, heads, P, d) for each window of a row, (B * across, heads, P, d)."""
        return prefix.repeat_interleave(self._counts[1], dim=0)

    def keys(self, batch: int, device: torch.device) -> tuple[Tensor | None, ...]:
        """For each row of windows the keys that their patches may see; `None`: all.

        (B * across, 1, 1, P + rows * columns). A window without any real patch sees everything;
        its output is not used.
        """
        if not self.masked or (self.cells is None and self._fills):
            return (None,) * self._counts[0]
        if ('patches', batch, device) not in self._masks:  # of all blocks
            seen = [each.flatten(0, 1)[:, None, None] for each in self._real(batch, device)]
            seen = [each | ~each.any(dim=-1, keepdim=True) for each in seen]
            padded = [F.pad(each, (self.num_prefix, 0), value=True) for each in seen]
            self._masks['patches', batch, device] = tuple(padded)
        return self._masks['patches', batch, device]

    def seen_by_prefix(self, batch: int, device: torch.device) -> Tensor:
        """(B, down, across, 1, 1, P + rows * columns): each token once, the padding never."""
        if ('prefix', batch, device) not in self._masks:
            seen = torch.stack(self._real(batch, device), dim=1)[:, :, :, None, None]
            at = torch.arange(math.prod(self._counts), device=device)
            first = (at == 0).view(1, *self._counts, 1, 1, 1)
            first = first.expand(batch, -1, -1, -1, -1, self.num_prefix)
            self._masks['prefix', batch, device] = torch.cat([first, seen], dim=-1)
        return self._masks['prefix', batch, device]

    def _real(self, batch: int, device: torch.device) -> list[Tensor]:
        """For each row of windows its patches of the image, (B, across, rows * columns)."""
        cells = self.cells if self.masked and self.cells else (self.grid,) * batch
        real = inside(cells, self.grid, device).flatten(1)[:, None, :, None]
        strips = self.strips(self.padded(real))
        return [self.split(each)[:, 0, :, 0].unflatten(0, (batch, -1)) for each in strips]


def inside(sizes: Sequence[Grid], shape: Grid, device: torch.device) -> Tensor:
    """(B, *shape), whether a cell lies inside of its image, in the top left corner."""
    (rows, columns), (height, width) = torch.tensor(sizes, device=device).T, shape
    down = torch.arange(height, device=device) < rows[:, None]
    across = torch.arange(width, device=device) < columns[:, None]
    return down[:, :, None] & across[:, None, :]


class Around(nn.Module):
    """Replaces a block's attention layer, whose `REL_POS` it uses, in one forward pass."""

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
    """Runs `scaled_dot_product_attention` in a layout."""

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
    prefix = (key[:, :, :num_prefix], value[:, :, :num_prefix])
    strips = (layout.strips(x[:, :, num_prefix:]) for x in (query, key, value))
    keys = layout.keys(len(query), query.device)
    patches, *windows = zip(
        *(
            _attend_windows(layout, tables, prefix, *strip, **options)
            for strip in zip(*strips, keys, strict=True)
        ),
        strict=True,
    )
    if not num_prefix:
        return torch.cat(patches, dim=2)
    first = _attend_prefix(layout, query[:, :, :num_prefix], *windows, **options)
    return torch.cat([first, *patches], dim=2)


def _attend_windows(
    layout: Layout,
    tables: list[Tensor],
    prefix: tuple[Tensor, Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    **options: object,
) -> tuple[Tensor, Tensor, Tensor]:
    """(B, heads, rows * W, d) of a row of windows, and their keys and values with the prefix'."""
    q, k, v = (layout.split(x) for x in (query, key, value))
    if tables:
        bias = F.pad(_relative_bias(q, tables, layout), (layout.num_prefix, 0))
        mask = bias if mask is None else bias.masked_fill(~mask, -torch.inf)
    if layout.num_prefix:
        k, v = (
            torch.cat([layout.spread(first), patches], dim=2)
            for first, patches in zip(prefix, (k, v), strict=True)
        )
    return layout.joined(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **options)), k, v


def _attend_prefix(
    layout: Layout,
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    *,
    scale: float | None = None,
    dropout_p: float = 0.0,
    **options: object,
) -> Tensor:
    """(B, heads, P, d) of the prefix, which sees all tokens, by the windows' keys and values.

    The backward pass keeps these anyway, while those of the whole image would come on top.
    """
    batch = len(query)
    query = query * (query.shape[-1] ** -0.5 if scale is None else scale)
    # (B, heads, P, d) and (B * across, heads, K, d) -> (B, down, across, heads, P, K)
    spread = [k.unflatten(0, (batch, -1)).transpose(-2, -1) for k in keys]
    logits = torch.stack([query[:, None] @ k for k in spread], dim=1)
    logits = logits.masked_fill(~layout.seen_by_prefix(batch, query.device), -torch.inf)
    weights = logits.permute(0, 3, 4, 1, 2, 5)
    weights = weights.flatten(3).softmax(-1, dtype=torch.float32).unflatten(3, weights.shape[3:])
    weights = F.dropout(weights.to(query), dropout_p).permute(3, 0, 4, 1, 2, 5)
    # (B, across, heads, P, K) and (B * across, heads, K, d) -> (B, heads, P, d)
    rows = zip(weights, values, strict=True)
    return sum((w @ v.unflatten(0, (batch, -1))).sum(1) for w, v in rows)


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
