"""Queries and the maps of a frozen backbone through blocks of a head's own.

Source: the plain mask decoder of PMT (2026), https://github.com/tue-mps/pmt (MIT).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.layers import RotaryEmbeddingDinoV3
from timm.models.eva import EvaBlock
from torch import Tensor, nn

from vit_backbones.arguments import integer
from vit_backbones.attention.joint import QueryMask, rotary_with_extra, run_jointly
from vit_backbones.position import Grid, cells, resample_map
from vit_backbones.readout import JointTokens, Tokens

Before = Callable[[int, JointTokens], Tensor | None]
_HEAD = 64  # channels of an attention head, as in ViTs


class Lateral(nn.Module):
    """A level's tokens (B, N, C) on their way into the sum: scale * (x + MLP(x)).

    Args:
        in_channels: Of the map; others than `channels` are projected first.
        channels: C.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        same = in_channels == channels
        self.project = nn.Identity() if same else nn.Linear(in_channels, channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, channels // 2), nn.GELU(), nn.Linear(channels // 2, channels)
        )
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, C) of tokens (B, N, in_channels)."""
        x = self.project(x)
        return self.scale * (x + self.mlp(x))


class PlainMaskDecoder(nn.Module):
    """Levels summed to one grid of tokens, which run with queries through plain ViT blocks.

    As PMT, but for two things: maps carry no prefix tokens, which PMT keeps, and there is no
    SyncBatchNorm per level, whose statistics are poor in small batches.

    Args:
        in_channels: Of each map.
        strides: Of each map, in pixels.
        stride: Of the tokens.
        channels: C of tokens and queries.
        num_blocks: Blocks.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        stride: int,
        channels: int,
        num_blocks: int,
    ) -> None:
        super().__init__()
        self.strides, self.stride = tuple(strides), stride
        self.laterals = nn.ModuleList(Lateral(each, channels) for each in in_channels)
        heads = channels // _HEAD
        options = dict(mlp_ratio=1.0, init_values=1.0, num_prefix_tokens=0, rotate_half=True)
        self.blocks = nn.ModuleList(
            EvaBlock(channels, heads, norm_layer=nn.LayerNorm, **options) for _ in range(num_blocks)
        )
        for block in self.blocks:
            block.attn.fused_attn = True  # the call that a mask reaches
        self.norm = nn.LayerNorm(channels)
        self.rope = RotaryEmbeddingDinoV3(channels // heads)

    def forward(
        self, maps: Sequence[Tensor], queries: Tensor, before: Before | None
    ) -> JointTokens:
        """Queries (Q, C) and tokens after the last block, normed; `before` as in `JointHead`."""
        x, grid = self._summed(maps)
        num_queries = len(queries)
        x = torch.cat([queries.expand(len(x), -1, -1), x], dim=1)
        rope = rotary_with_extra(self.rope.get_embed(shape=grid).to(x.device), num_queries)
        for index, block in enumerate(self.blocks):
            allowed = None
            if before is not None:
                allowed = before(index, self._normed(x, num_queries, grid))
            mask = None if allowed is None else QueryMask(allowed, num_prefix=0)
            x = run_jointly(block, x, mask, rope=rope)
        return self._normed(x, num_queries, grid)

    def _summed(self, maps: Sequence[Tensor]) -> tuple[Tensor, Grid]:
        """Tokens (B, h*w, C) of all levels, on one grid."""
        if len(maps) != len(self.laterals):
            raise ValueError(
                f'the backbone gives {len(maps)} maps, and the head has in_channels for '
                f'{len(self.laterals)}: give in_channels one number for each of out_indices'
            )
        grid, total = self._grid(maps), 0
        for x, lateral, stride in zip(maps, self.laterals, self.strides, strict=True):
            if tuple(x.shape[-2:]) != grid or stride != self.stride:
                x = resample_map(x, grid, (self.stride / stride,) * 2)
            total = total + lateral(x.flatten(2).transpose(1, 2))
        return total, grid

    def _grid(self, maps: Sequence[Tensor]) -> Grid:
        """(h, w) of the tokens: that of a map of their stride, else of the finest map, scaled."""
        if self.stride in self.strides:
            return tuple(maps[self.strides.index(self.stride)].shape[-2:])
        finest = min(self.strides)
        sides = (side * finest for side in maps[self.strides.index(finest)].shape[-2:])
        return cells(tuple(sides), (self.stride, self.stride))

    def _normed(self, x: Tensor, num_queries: int, grid: Grid) -> JointTokens:
        x = self.norm(x)
        return JointTokens(x[:, :num_queries], Tokens(x[:, num_queries:], x[:, :0], grid))


class ThroughOwnBlocks(nn.Module):
    """Mixin for a `JointHead` that gets maps, and has blocks of its own for its queries.

    Args:
        in_channels: Channels of each map.
        stride: Pixels of a token's side.
        strides: Of each map, by default `stride` for all.
        feat_channels: Channels of tokens and queries, a multiple of 64; by default the largest of
            `in_channels`.
        num_blocks: Blocks of the head.
        **kwargs: As `JointHead`.
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        stride: int = 16,
        strides: Sequence[int] | None = None,
        feat_channels: int | None = None,
        num_blocks: int = 6,
        **kwargs: Any,
    ) -> None:
        in_channels = [in_channels] if isinstance(in_channels, int) else list(in_channels)
        strides = [stride] * len(in_channels) if strides is None else list(strides)
        if len(strides) != len(in_channels):
            raise ValueError(
                f'strides={strides} of {len(in_channels)} maps (in_channels={in_channels}): give '
                f'one for each map'
            )
        channels = integer('feat_channels', feat_channels or max(in_channels), _HEAD)
        if channels % _HEAD:
            raise ValueError(f'feat_channels={channels} must be a multiple of {_HEAD}')
        super().__init__(feat_channels=channels, patch_size=stride, num_blocks=num_blocks, **kwargs)
        self.decoder = PlainMaskDecoder(in_channels, strides, stride, channels, num_blocks)

    def _run(self, x: Sequence[Tensor], before: Before | None) -> JointTokens:
        return self.decoder(x, self.query_embed.weight, before)

    def _covers(self, grid: Grid, size: Grid) -> bool:
        """Maps of models in stages may reach beyond the images, up to the largest stride."""
        beyond = max(self.decoder.strides) // self.decoder.stride
        needed = cells(size, self.patch_size)
        return all(0 <= own - least <= beyond for own, least in zip(grid, needed, strict=True))
