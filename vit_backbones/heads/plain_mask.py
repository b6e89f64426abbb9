"""A mask decoder for features as they are: lateral sums, and blocks of its own."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import RotaryEmbeddingDinoV3
from timm.models.eva import EvaBlock
from torch import Tensor, nn

from vit_backbones.arguments import integer, pair
from vit_backbones.attention.joint import QueryMask, rotary_with_extra, run_jointly
from vit_backbones.errors import counted
from vit_backbones.heads.joint_head import Before
from vit_backbones.position import Grid, cells, resample_map
from vit_backbones.readout import JointTokens, Tokens

Steps = tuple[float, float]


class Lateral(nn.Module):
    """Tokens (..., C') of a level for the sum: scale * (x + MLP(x)) of x projected to C channels.

    Args:
        in_channels: C'.
        channels: C; there is a projection only if they differ.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        differs = in_channels != channels
        self.projection = nn.Linear(in_channels, channels) if differs else nn.Identity()
        inner = channels // 2
        self.mlp = nn.Sequential(nn.Linear(channels, inner), nn.GELU(), nn.Linear(inner, channels))
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C)."""
        x = self.projection(x)
        return self.scale * (x + self.mlp(x))


class PlainMask:
    """Mixin for a `JointHead` that gets maps: their sum and the queries go through own blocks.

    The maps are `ViTFeatBackbone`'s, best of four layers and normed (`out_indices='even4',
    norm='all'`). It is the plain mask decoder of PMT (2026), which was made for frozen backbones,
    but for two things: the released code has a batch norm before each lateral, whose statistics
    are poor in small batches, and CLS and registers go through its blocks, which maps lack.

    Args:
        in_channels: Of each of the maps; an int is one map.
        stride: Of the patches in pixels, an int or (height, width): maps of other strides are
            resampled to the grid of the first of this one.
        strides: Of each of the maps; by default all have `stride`.
        feat_channels: Of patches and queries; by default those of the first map of `stride`.
        num_blocks: 6 as published.
        num_heads: Of attention; by default one for 64 channels.
        mlp_ratio: Inner channels of the blocks' MLPs, as a multiple; 1 as released.
        **kwargs: As `JointHead`, without `patch_size`.
    """

    def __init__(
        self,
        *,
        in_channels: int | Sequence[int],
        stride: int | Sequence[int] = 16,
        strides: Sequence[int | Sequence[int]] | None = None,
        feat_channels: int | None = None,
        num_blocks: int = 6,
        num_heads: int | None = None,
        mlp_ratio: float = 1.0,
        **kwargs: Any,
    ) -> None:
        several = isinstance(in_channels, Sequence)
        given = in_channels if several else [in_channels]
        channels = [integer('in_channels', each, 1) for each in given]
        target, steps = _sampling(stride, strides, len(channels))
        width = integer('feat_channels', feat_channels or channels[target], 1)
        heads = integer('num_heads', num_heads or max(1, width // 64), 1)
        if width % (4 * heads):
            raise ValueError(
                f'feat_channels={width} must be a multiple of 4 * num_heads, for positions of rows '
                f'and columns; got num_heads={heads}'
            )
        super().__init__(feat_channels=width, patch_size=stride, num_blocks=num_blocks, **kwargs)
        self.in_channels, self._target, self._steps = channels, target, steps
        self.laterals = nn.ModuleList(Lateral(each, width) for each in channels)
        self.rope = RotaryEmbeddingDinoV3(width // heads)
        self.blocks = nn.ModuleList(_block(width, heads, mlp_ratio) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(width)

    def _run(self, x: Sequence[Tensor], before: Before | None) -> JointTokens:
        self._check(x)
        grid = tuple(x[self._target].shape[-2:])
        levels = zip(self.laterals, x, self._steps, strict=True)
        patches = sum(lateral(_sampled(level, grid, step)) for lateral, level, step in levels)
        queries = self.query_embed.weight.expand(patches.shape[0], -1, -1)
        tokens = torch.cat([queries, patches], dim=1)
        rope = rotary_with_extra(self.rope.get_embed(grid), self.num_queries)
        for index, block in enumerate(self.blocks):
            allowed = None if before is None else before(index, self._joint(tokens, grid))
            mask = None if allowed is None else QueryMask(allowed, 0)
            tokens = run_jointly(block, tokens, mask, rope=rope)
        return self._joint(tokens, grid)

    def _joint(self, tokens: Tensor, grid: Grid) -> JointTokens:
        queries, patches = self.norm(tokens).tensor_split([self.num_queries], dim=1)
        return JointTokens(queries, Tokens(patches, patches[:, :0], grid))

    def _covers(self, grid: Grid, size: Grid) -> bool:
        """Staged models pad images to their coarsest stride, so that finer maps reach beyond."""
        least = cells(size, self.patch_size)
        coarse = [math.ceil(1 / min(steps)) for steps in zip(*self._steps, strict=True)]
        most = [n * of for n, of in zip(cells(least, coarse), coarse, strict=True)]
        return all(low <= own <= high for low, own, high in zip(least, grid, most, strict=True))

    def _check(self, x: Sequence[Tensor]) -> None:
        got = [level.shape[1] for level in x]
        if got != self.in_channels:
            raise ValueError(
                f'{type(self).__name__} has in_channels={self.in_channels} and got '
                f'{counted(len(got), "map")} of {" and ".join(map(str, got))} channels: set '
                f"in_channels to those of the backbone's maps"
            )


def _sampling(
    stride: int | Sequence[int], strides: Sequence[Any] | None, num_levels: int
) -> tuple[int, list[Steps]]:
    """The first map of `stride`, and each map's cells for a cell of that one."""
    if not num_levels:
        raise ValueError('in_channels must name the channels of one map or more, got none')
    wanted = pair('stride', stride)
    given = [wanted] * num_levels if strides is None else [pair('strides', s) for s in strides]
    if len(given) != num_levels or wanted not in given:
        raise ValueError(
            f'strides={strides} must have one for each of the {num_levels} in_channels, and '
            f'stride={stride} among them'
        )
    steps = [(wanted[0] / rows, wanted[1] / columns) for rows, columns in given]
    return given.index(wanted), steps


def _sampled(level: Tensor, grid: Grid, step: Steps) -> Tensor:
    """A map (B, C, h, w) as tokens (B, N, C) of a grid."""
    maps = level if step == (1, 1) else resample_map(level, grid, step)
    return maps.flatten(2).transpose(1, 2)


def _block(channels: int, num_heads: int, mlp_ratio: float) -> EvaBlock:
    block = EvaBlock(
        channels,
        num_heads,
        mlp_ratio=mlp_ratio,
        num_prefix_tokens=0,
        rotate_half=True,
        init_values=1.0,
        norm_layer=nn.LayerNorm,
    )
    block.attn.fused_attn = True  # masks of queries reach this one
    return block
