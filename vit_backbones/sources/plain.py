"""Plain ViTs: tokens of one grid, which go through one block after the other."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import checkpoint

from vit_backbones.attention.joint import QueryMask, run_jointly
from vit_backbones.position import Grid
from vit_backbones.readout import JointTokens, Tokens
from vit_backbones.sources.base import Source

Before = Callable[[int, JointTokens], Tensor | None]


class Start(NamedTuple):
    """Tokens on their way into the first block.

    Attributes:
        x: (B, P + h*w, C).
        grid: (h, w).
        options: Further arguments of each block.
    """

    x: Tensor
    grid: Grid
    options: Sequence[dict[str, Any]]


class PlainSource(Source):
    """Base of the adapters of plain ViTs."""

    @abstractmethod
    def start(self, vit: nn.Module, images: Tensor, pos_interp: str, **sizes: Any) -> Start:
        """Tokens of padded images (B, C, H, W) before the first block."""

    @abstractmethod
    def blocks(self, vit: nn.Module) -> nn.ModuleList:
        """The model's blocks."""

    def recomputes(self, vit: nn.Module) -> bool:
        """Whether blocks are computed anew in the backward pass."""
        return vit.grad_checkpointing

    def tokens(
        self, vit: nn.Module, images: Tensor, indices: list[int], pos_interp: str, **sizes: Any
    ) -> list[Tokens]:
        """Un-normed tokens of padded images (B, C, H, W) after the layers `indices`, ascending."""
        start, kept = self.start(vit, images, pos_interp, **sizes), []
        x = start.x
        for index, block in enumerate(self.blocks(vit)[: indices[-1] + 1]):
            x = self._run(vit, block, x, **start.options[index])
            if index in indices:
                kept.append(self._split(vit, x, start.grid))
        return kept

    def joint(
        self,
        vit: nn.Module,
        images: Tensor,
        extra: Tensor,
        num_blocks: int,
        pos_interp: str,
        *,
        learns: bool,
        before: Before | None = None,
    ) -> JointTokens:
        """Normed tokens after the last block, of which the last `num_blocks` also run `extra`.

        Arguments are those of `ViTFeatBackbone.joint`; `learns` is whether embeddings and the first
        blocks have gradients.
        """
        first = self.depth(vit) - num_blocks
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            x, grid, options = self.start(vit, images, pos_interp)
            for index, block in enumerate(self.blocks(vit)[:first]):
                x = self._run(vit, block, x, **options[index])
        x = torch.cat([extra.expand(x.shape[0], -1, -1), x], dim=1)
        num_extra = extra.shape[-2]
        for index, block in enumerate(self.blocks(vit)[first:]):
            allowed = None
            if before is not None:
                allowed = before(index, self._joint(vit, x, num_extra, grid))
            mask = None if allowed is None else QueryMask(allowed, self.num_prefix_tokens(vit))
            own = self.joint_options(options[first + index], num_extra)
            x = self._run(vit, run_jointly, block, x, mask, **own)
        return self._joint(vit, x, num_extra, grid)

    def joint_options(self, options: dict[str, Any], num_extra: int) -> dict[str, Any]:
        """A block's arguments with more tokens in front of the prefix."""
        return options

    def prepare_joint(self, vit: nn.Module, num_blocks: int) -> None:
        """Stop drop path in the last blocks, as EoMT does: queries must not lose a block."""
        for block in self.blocks(vit)[-num_blocks:]:
            for module in block.modules():
                if hasattr(module, 'drop_prob'):
                    module.drop_prob = 0.0

    def _run(self, vit: nn.Module, run: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call a block, or a function of one, which the backward pass may repeat."""
        if self.recomputes(vit) and torch.is_grad_enabled():
            return checkpoint.checkpoint(run, *args, use_reentrant=False, **options)
        return run(*args, **options)

    def _split(self, vit: nn.Module, x: Tensor, grid: Grid) -> Tokens:
        num_prefix = self.num_prefix_tokens(vit)
        return Tokens(x[:, num_prefix:], x[:, :num_prefix], grid)

    def _joint(self, vit: nn.Module, x: Tensor, num_extra: int, grid: Grid) -> JointTokens:
        normed = self.norm(vit)(x)
        return JointTokens(normed[:, :num_extra], self._split(vit, normed[:, num_extra:], grid))
