"""The tokens of timm's plain ViTs before their blocks, for any grid, or for one of each image.

As timm's own `_pos_embed`, with two differences: the table of positions is given, and nothing in it
depends on the size of an image, so that compiled code serves all of them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vit_backbones.position import Grid, widened


def embedded(vit: nn.Module, images: Tensor, table: Tensor | None) -> Tensor:
    """Tokens (B, P + h*w, C) of images, with positions (B or 1, prefix + h*w, C)."""
    _check_keeps_patches(vit.patch_drop)
    x = _patches(vit.patch_embed, images)
    named = (vit.cls_token, getattr(vit, 'dist_token', None), vit.reg_token)
    prefix = [token.expand(x.shape[0], -1, -1) for token in named if token is not None]
    of_patches_only = table is not None and table.shape[1] == x.shape[1]
    if of_patches_only:
        x = x + table
    x = torch.cat([*prefix, x], dim=1)
    if table is not None and not of_patches_only:
        x = x + table
    return vit.norm_pre(vit.pos_drop(x))


def _patches(patch_embed: nn.Module, images: Tensor) -> Tensor:
    """(B, h*w, C); compiled without timm's checks of the sides, which would fix these."""
    if torch.compiler.is_compiling():
        return patch_embed.norm(patch_embed.proj(images).flatten(2).transpose(1, 2))
    return patch_embed(images).flatten(1, 2)  # (B, h, w, C) -> (B, h*w, C)


def _check_keeps_patches(patch_drop: nn.Module | None) -> None:
    if patch_drop is not None and patch_drop.training and getattr(patch_drop, 'prob', 0):
        raise ValueError(
            f'patch_drop_rate={patch_drop.prob}: a backbone in training keeps all patches of its '
            f'images: build the model with patch_drop_rate=0, or set its patch_drop.prob to 0'
        )


def rotary(vit: nn.Module, grid: Grid, grids: Sequence[Grid] | None) -> Tensor | None:
    """Rotary positions, on each image's own grid if there are several; `None` without any.

    (h*w, D), or (B, 1, h*w, D) of several grids; (depth, heads, h*w, D), or (depth, B, heads, h*w,
    D), where blocks and heads differ.
    """
    rope = getattr(vit, 'rope', None)
    if rope is None:
        return None
    if grids is None:
        return _on_grid(rope, grid)
    of = {own: widened(_on_grid(rope, own), own, grid) for own in set(grids)}
    embeds = torch.stack([of[own] for own in grids], dim=-3)  # (..., B, N, D)
    if embeds.ndim == 3:
        return embeds[:, None]
    return embeds.transpose(1, 2)  # (depth, heads, B, N, D) -> (depth, B, heads, N, D)


def _on_grid(rope: nn.Module, grid: Grid) -> Tensor:
    """Rotary positions (..., h*w, D), sines first, that fit any grid after an export.

    DINOv3's turn the sides of the grid into plain numbers, which a trace keeps as constants.
    """
    exporting = torch.jit.is_tracing() or torch.compiler.is_exporting()
    dinov3 = hasattr(rope, '_get_pos_embed_from_coords') and rope.normalize_coords == 'separate'
    if not (exporting and dinov3):
        return rope.get_embed(shape=grid)
    offset = 0.5 + rope.grid_offset
    rows, columns = ((torch.arange(side) + offset) / side for side in grid)
    places = torch.stack(torch.meshgrid(rows, columns, indexing='ij'), dim=-1)
    places = places.flip(-1) if rope.grid_indexing == 'xy' else places
    both = rope._get_pos_embed_from_coords(2 * places.flatten(0, 1) - 1)
    return torch.cat(both, dim=-1)
