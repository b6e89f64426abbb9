"""Positional encoding of maps without padding, made once for all images and steps of a size."""

import torch
from mmdet.models.layers import SinePositionalEncoding
from torch import Tensor

from vit_backbones.position import Grid

_KEPT = 4  # sizes: those of one image's levels


class GridEncoding(SinePositionalEncoding):
    """mmdet's, of a mask that marks nothing; the last few results are kept."""

    def forward(self, mask: Tensor | None, input: Tensor | None = None) -> Tensor:
        """(1, 2 * num_feats, h, w) for a mask (B, h, w), whose values are not read."""
        like = input if mask is None else mask
        grid, device = tuple(like.shape[-2:]), like.device
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self._made(grid, device)
        kept = self.__dict__.setdefault('_kept', {})
        if (grid, device) in kept:
            return kept[grid, device]
        with torch.inference_mode(False), torch.no_grad():
            made = self._made(grid, device)
        if type(made) is Tensor:  # no fake one
            if len(kept) == _KEPT:
                kept.pop(next(iter(kept)))
            kept[grid, device] = made
        return made

    def _made(self, grid: Grid, device: torch.device) -> Tensor:
        return super().forward(torch.zeros((1, *grid), dtype=torch.bool, device=device))
