"""Attention in windows, only over real pixels, with relative positions, in any layer.

A library's attention layer runs unchanged, with its projections, norms and rotary positions; only
the `scaled_dot_product_attention` that it calls is replaced. So one piece of code serves every such
layer, and no parameter changes its name.
"""

from typing import NamedTuple

REL_POS = ('rel_pos_h', 'rel_pos_w')  # detectron2's names, tables (2 * side - 1, head_dim)


class Attention(NamedTuple):
    """How the blocks of a plain ViT attend."""

    window: int = 0  # side in patches, 0 for none
    blocks: tuple[int, ...] = ()  # those that attend within windows
    rel_pos: bool = False  # each block has tables of decomposed relative positions
    masked: bool = False  # padding is kept out
