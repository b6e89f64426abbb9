"""Decomposed relative positions as channels of queries and keys, without any N x N tensor.

The bias of query i and key j is `a[i, row(j)] + b[i, column(j)]`: a product of further channels,
`a` and `b` of the query with the key's row and column, one-hot.

Source: Li et al., MViTv2 (arXiv 2112.01526), as used in ViTDet (arXiv 2203.16527).
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vit_backbones.attention.windows import Layout
from vit_backbones.position import resample_relative

_HIDDEN = -1e4  # logit of a hidden key
_QUERIES = 256  # at a time, where the channels are too many
_DATA_CENTRE = ((8, 0), (9, 0), (10, 0), (10, 3))  # compute capabilities


def most_channels(query: Tensor) -> float:
    """Channels that PyTorch's kernels take without an N x N tensor: fewer on consumer GPUs."""
    if query.device.type != 'cuda':
        return math.inf
    device = torch.cuda.get_device_properties(query.device)
    large = (device.major, device.minor) in _DATA_CENTRE
    return 256 if large or not torch.is_grad_enabled() else 192


def attend_relatively(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    biases: Tensor,
    sides: tuple[int, int],
    *,
    scale: float,
    dropout_p: float = 0.0,
) -> Tensor:
    """Attention (B, heads, Q, d) with `biases` (B, heads, Q, rows + columns) of the last n keys."""
    dim = query.shape[-1]
    width = (dim + sum(sides) + 7) // 8 * 8  # kernels need a multiple of 8, and as many in values
    if width > most_channels(query):
        return _by_blocks(query, key, value, biases, sides, scale=scale, dropout_p=dropout_p)
    free = width - dim - sum(sides)
    places = F.pad(_places(sides, key), (0, free, key.shape[2] - math.prod(sides), 0))
    query = torch.cat([query, biases / scale, _zeros(query, free)], dim=-1)
    key = torch.cat([key, places.expand(*key.shape[:2], -1, -1)], dim=-1)
    out_dim = value.shape[-1]
    value = torch.cat([value, _zeros(value, max(width - out_dim, 0))], dim=-1)
    out = F.scaled_dot_product_attention(query, key, value, scale=scale, dropout_p=dropout_p)
    return out[..., :out_dim]


def _zeros(like: Tensor, channels: int) -> Tensor:
    return like.new_zeros(*like.shape[:-1], channels)


def _places(sides: tuple[int, int], like: Tensor) -> Tensor:
    """(n, rows + columns), the row and the column of each patch, one-hot."""
    rows, columns = (torch.eye(side, dtype=like.dtype, device=like.device) for side in sides)
    both = rows[:, None].expand(-1, sides[1], -1), columns[None].expand(sides[0], -1, -1)
    return torch.cat(both, dim=-1).flatten(0, 1)


def _by_blocks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    biases: Tensor,
    sides: tuple[int, int],
    **options: float,
) -> Tensor:
    """The same for some queries at a time, whose N x N bias the backward pass computes again."""

    def attend(query: Tensor, biases: Tensor, key: Tensor, value: Tensor) -> Tensor:
        rows, columns = biases.split(sides, dim=-1)
        bias = (rows[..., None] + columns[..., None, :]).flatten(-2)
        bias = F.pad(bias, (key.shape[2] - bias.shape[-1], 0))
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, **options)

    blocks = zip(query.split(_QUERIES, dim=2), biases.split(_QUERIES, dim=2), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([attend(*block, key, value) for block in blocks], dim=2)
    kept = dict(use_reentrant=False, preserve_rng_state=options['dropout_p'] > 0)
    return torch.cat([checkpoint(attend, *block, key, value, **kept) for block in blocks], dim=2)


def relative_biases(
    query: Tensor, tables: Sequence[Tensor], layout: Layout, hidden: Tensor | None, scale: float
) -> Tensor:
    """(B, heads, Q, rows + columns) of queries (B, heads, Q, d); those before the last n have none.

    Args:
        query: Of the whole layout, or of windows, which then are the batch.
        tables: Of rows and columns.
        layout: Shows the sides, and the grid of each image.
        hidden: (B or 1, heads or 1, 1, rows + columns), whether such keys are hidden.
        scale: Of the attention.
    """
    num_prefix = query.shape[2] - math.prod(layout.sides)
    maps = query[:, :, num_prefix:].unflatten(2, layout.sides)
    owns = zip(*(layout.cells or [layout.grid]), strict=True)  # rows, columns of each image
    of_rows, of_columns = (
        # a table of windows is for these, whatever the images
        _by_distance(table, side, [len(table) // 2 + 1] if layout.window else own).to(query)
        for table, side, own in zip(tables, layout.sides, owns, strict=True)
    )
    along_rows = torch.einsum('bnhwd,bhkd->bnhwk', maps, of_rows)
    along_columns = torch.einsum('bnhwd,bwkd->bnhwk', maps, of_columns)
    biases = torch.cat([along_rows, along_columns], dim=-1).flatten(2, 3)
    biases = F.pad(biases, (0, 0, num_prefix, 0)).to(query)
    if hidden is None:
        return biases
    lowest = torch.finfo(query.dtype).min * scale / 8  # fp16 cannot hold much more
    return biases.masked_fill(hidden, max(_HIDDEN, lowest))


def _by_distance(table: Tensor, side: int, owns: Sequence[int]) -> Tensor:
    """(images, side, side, d), by query and key: a table resampled to each image's own side."""
    at = torch.arange(side, device=table.device)
    distances, of = at[:, None] - at, {}
    for own in set(owns):
        fitted = resample_relative(table, 2 * own - 1)
        of[own] = fitted[distances.clamp(1 - own, own - 1) + own - 1]
    return torch.stack([of[own] for own in owns])
