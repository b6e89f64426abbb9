"""What timm's plain ViTs need for windowed, masked or relative attention."""

import torch
from torch import nn

from vit_backbones.attention import REL_POS, Attention
from vit_backbones.attention.following import let_follow
from vit_backbones.attention.windows import Layout
from vit_backbones.position import Grid
from vit_backbones.sources.base import INSTEAD
from vit_backbones.sources.timm_embedding import rotary


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
        attn.fused_attn = True  # the call that is replaced
        let_follow(attn)
        if attention.rel_pos:
            window = attention.window if index in attention.blocks else 0
            sides = (window, window) if window else vit.patch_embed.grid_size
            for name, side in zip(REL_POS, sides, strict=True):
                zeros = next(attn.parameters()).new_zeros(2 * side - 1, attn.head_dim)
                setattr(attn, name, getattr(attn, name, nn.Parameter(zeros)))


def check_joint(vit: nn.Module, attention: Attention, num_blocks: int) -> None:
    """Check that the last blocks can also run queries, and let them call the attention they mask.

    Raises:
        ValueError: They attend in windows, with relative positions or to real pixels only.
    """
    first = len(vit.blocks) - num_blocks
    windowed = [index for index in attention.blocks if index >= first]
    found = (
        (f'window_block_indexes holds {windowed and windowed[0]}', bool(windowed)),
        ('use_rel_pos=True', attention.rel_pos),
        ('mask_padding=True', attention.masked),
    )
    for given, refused in found:
        if refused:
            raise ValueError(
                f'{given}, but queries run through blocks {first} to {len(vit.blocks) - 1}, which '
                f'then attend to everything: leave it out there; {INSTEAD}'
            )
    for block in vit.blocks[first:]:
        if not hasattr(getattr(block, 'attn', None), 'fused_attn'):
            raise ValueError(
                f'{type(block).__name__} has no attention layer that can run queries: {INSTEAD}'
            )
        block.attn.fused_attn = True


def block_options(
    vit: nn.Module,
    attention: Attention,
    grid: Grid,
    grids: tuple[Grid, ...] | None,
    device: torch.device,
) -> list[dict[str, object]]:
    """What to call each block with: rotary positions, and how it attends.

    Args:
        vit: The model.
        attention: How its blocks attend.
        grid: (h, w) of the batch.
        grids: (h, w) of each image; `None` if all fill the batch's.
        device: Of the tokens.
    """
    own = [attention.window if i in attention.blocks else 0 for i in range(len(vit.blocks))]
    layouts = {
        window: Layout(
            grid,
            vit.num_prefix_tokens,
            device,
            window=window,
            masked=attention.masked,
            cells_of_images=grids,
        )
        for window in set(own)
    }
    options: list[dict[str, object]] = [{} for _ in own]
    rope = rotary(vit, grid, grids)
    for index, window in enumerate(own):
        if attention.rel_pos or not layouts[window].changes_nothing:
            options[index]['attn_mask'] = layouts[window]
        if rope is not None:
            options[index]['rope'] = rope[index] if vit.rope_mixed else rope
    return options
