"""Replacement modules that give timm's plain ViTs windowed, masked or relative attention.

They last for one forward pass, in shallow copies of the model (`view`); the model is not changed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vit_backbones.attention import REL_POS, Around, Attention, Layout
from vit_backbones.position import Grid, widened
from vit_backbones.sources.copies import view
from vit_backbones.sources.timm_positions import with_positions


def prepare(vit: nn.Module, attention: Attention) -> None:
    """Check that the blocks can attend so, and add tables of relative positions, all zero.

    A table has the size of its block's window, or of the grid for which the model is built.
    """
    wrong = [index for index in attention.blocks if not 0 <= index < len(vit.blocks)]
    if wrong:
        raise ValueError(
            f'window_block_indexes holds {wrong[0]}, but the model has {len(vit.blocks)} blocks, '
            f'0 to {len(vit.blocks) - 1}'
        )
    for index, block in enumerate(vit.blocks):
        attn = getattr(block, 'attn', None)
        if not hasattr(attn, 'fused_attn'):
            raise ValueError(
                f'{type(block).__name__} has no attention layer that can run in windows, with '
                f'use_rel_pos or with mask_padding: use another model'
            )
        attn.fused_attn = True  # `Around` replaces that call
        if attention.rel_pos:
            window = attention.window if index in attention.blocks else 0
            sides = (window, window) if window else vit.patch_embed.grid_size
            for name, side in zip(REL_POS, sides, strict=True):
                zeros = next(attn.parameters()).new_zeros(2 * side - 1, attn.head_dim)
                setattr(attn, name, getattr(attn, name, nn.Parameter(zeros)))


def attending(vit: nn.Module, attention: Attention, layout: Layout) -> nn.Module:
    """A view of the model whose blocks attend to everything or in windows."""
    windows = replace(layout, window=attention.window)
    blocks = {}
    for index, block in enumerate(vit.blocks):
        own = windows if index in attention.blocks else layout
        if attention.rel_pos or not own.changes_nothing:
            blocks[str(index)] = _around(block, own)
    return view(vit, blocks=view(vit.blocks, **blocks)) if blocks else vit


def _around(block: nn.Module, layout: Layout) -> nn.Module:
    """A view of a block, and of its wrappers, whose attention layer follows a layout."""
    children = block._modules
    if 'attn' in children:
        return view(block, attn=Around(children['attn'], layout))
    if len(children) == 1:  # a wrapper, of FSDP or for recomputing
        ((name, inner),) = children.items()
        return view(block, **{name: _around(inner, layout)})
    raise ValueError(
        f'{type(block).__name__} hides the attention layer of a block, which must run in windows, '
        f'with relative positions or masked: wrap the backbone as a whole'
    )


def positioned_apart(
    vit: nn.Module, tables: Mapping[Grid, Tensor | None], cells: Sequence[Grid], grid: Grid
) -> nn.Module:
    """A view of the model with positions for each image of a batch.

    Args:
        tables: Position table (1, prefix + h*w, C) for the grid of each image, or `None`s.
        cells: Grid of each image.
        grid: Grid of the batch; smaller ones lie in its top left corner.
    """
    parts = {}
    if getattr(vit, 'rope', None) is not None:
        parts['rope'] = _RopeApart(vit.rope, cells, grid)
    if vit.pos_embed is None:
        return view(vit, **parts)
    positions = [widened(tables[own], own, grid) for own in cells]
    added = torch.cat(positions)  # (B, prefix + h*w, C)
    added = F.pad(added, (0, 0, vit.num_prefix_tokens + math.prod(grid) - added.shape[1], 0))
    parts['pos_drop'] = _AddFirst(vit.pos_drop, added)
    return view(with_positions(vit, torch.zeros_like(positions[0]), grid), **parts)


def traced(vit: nn.Module) -> nn.Module:
    """A view of the model whose rotary positions fit any grid after an export.

    DINOv3's turn the sides of the grid into plain numbers, which a trace keeps as constants.
    """
    rope = getattr(vit, 'rope', None)
    exporting = torch.jit.is_tracing() or torch.compiler.is_exporting()
    dinov3 = hasattr(rope, '_get_pos_embed_from_coords') and rope.normalize_coords == 'separate'
    if exporting and dinov3:
        return view(vit, rope=_RopeTraced(rope))
    return vit


class _RopeTraced(nn.Module):
    """DINOv3's rotary positions, computed from the traced sides of the grid."""

    def __init__(self, rope: nn.Module) -> None:
        super().__init__()
        self.rope = rope

    def get_embed(self, shape: Grid) -> Tensor:
        """(h*w, 2 * D), sines first."""
        offset = 0.5 + self.rope.grid_offset
        rows, columns = ((torch.arange(side) + offset) / side for side in shape)
        grid = torch.stack(torch.meshgrid(rows, columns, indexing='ij'), dim=-1)
        grid = grid.flip(-1) if self.rope.grid_indexing == 'xy' else grid
        both = self.rope._get_pos_embed_from_coords(2 * grid.flatten(0, 1) - 1)
        return torch.cat(both, dim=-1)


class _AddFirst(nn.Module):
    """A layer that first adds a constant to its input."""

    def __init__(self, layer: nn.Module, added: Tensor) -> None:
        super().__init__()
        self.layer, self.added = layer, added

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x + self.added)


class _RopeApart(nn.Module):
    """Rotary positions of each image on its own grid."""

    def __init__(self, rope: nn.Module, cells: Sequence[Grid], grid: Grid) -> None:
        super().__init__()
        self.rope, self.cells, self.grid = rope, cells, grid

    def get_embed(self, shape: object = None) -> Tensor:
        """(B, 1, N, D), or (depth, B, heads, N, D) where blocks and heads differ."""
        of = {own: widened(self.rope.get_embed(shape=own), own, self.grid) for own in self.cells}
        embeds = torch.stack([of[own] for own in self.cells], dim=-3)  # (..., B, N, D)
        if embeds.ndim == 3:
            return embeds[:, None]
        return embeds.transpose(1, 2)  # (depth, heads, B, N, D) -> (depth, B, heads, N, D)
