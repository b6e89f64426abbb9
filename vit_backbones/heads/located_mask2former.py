"""Mask2Former's head with queries that have a place, for many like objects, for MMDetection."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.structures import SampleList
from mmengine.registry import MODELS
from torch import Tensor, nn

from vit_backbones.heads.batched_mask2former import BatchedMask2FormerHead


@MODELS.register_module()
class LocatedMask2FormerHead(BatchedMask2FormerHead):
    """Mask2Former's head, where every query looks for objects around a place of its own.

    Similar objects of one class differ only in their place, and Mask2Former's queries take very
    long to separate them. Here the mask logits of a query are those of Mask2Former minus half its
    squared distance to each pixel, in units of a width: a Gaussian window. Places start spread over
    the image, widths at their spacing; each decoder layer moves and scales them. The neck's maps
    get the positional encoding added, so that features know their place.

    Windows of this kind are those of SMCA (Gao et al., Fast Convergence of DETR with Spatially
    Modulated Co-Attention, ICCV 2021), there on attention instead of masks.

    Args:
        **kwargs: As `mmdet.Mask2FormerHead`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.places = nn.Parameter(_spread(self.num_queries).logit())  # (Q, 2), x and y
        self.window = nn.Linear(self.query_embed.embedding_dim, 4)  # moves and log widths
        nn.init.zeros_(self.window.weight)
        nn.init.zeros_(self.window.bias)

    def forward(
        self, x: tuple[Tensor, ...], batch_data_samples: SampleList
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Logits of classes (B, Q, classes + 1) and masks (B, Q, h, w) of every decoder layer.

        The neck's maps `x` are (B, C, h, w) each.
        """
        encode = self.decoder_positional_encoding
        placed = [m + encode(m.new_zeros(m[:, 0].shape, dtype=torch.bool)) for m in x]
        return super().forward(placed, batch_data_samples)

    def _forward_head(
        self, decoder_out: Tensor, mask_feature: Tensor, attn_mask_target_size: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        cls_pred, mask_pred, _ = super()._forward_head(
            decoder_out, mask_feature, attn_mask_target_size
        )
        mask_pred = mask_pred + self._windows(decoder_out, mask_pred.shape[-2:])
        attended = F.interpolate(mask_pred.detach(), attn_mask_target_size, mode='bilinear') >= 0
        blocked = ~attended.flatten(2)  # (B, Q, h * w), the same for every head
        return cls_pred, mask_pred, blocked.repeat_interleave(self.num_heads, 0)

    def _windows(self, decoder_out: Tensor, size: tuple[int, int]) -> Tensor:
        """Logarithms (B, Q, h, w) of the queries' Gaussian windows, at least -20."""
        window = self.window(self.transformer_decoder.post_norm(decoder_out)).float()
        moves, log_widths = window.split(2, dim=-1)
        centres = (self.places + moves).sigmoid()  # (B, Q, 2)
        widths = (log_widths - 0.5 * math.log(self.num_queries)).clamp(min=math.log(0.01)).exp()
        squares = 0.0
        for axis, length in enumerate(reversed(size)):
            pixels = (torch.arange(length, device=window.device) + 0.5) / length
            distances = (pixels - centres[..., axis, None]) / widths[..., axis, None]
            squares = squares + distances.square().unsqueeze(-2 if axis == 0 else -1)
        return (-0.5 * squares).clamp(min=-20.0)


def _spread(num_points: int) -> Tensor:
    """Points (N, 2) evenly over the unit square: Roberts' R2 sequence."""
    root = 1.32471795724474602596  # of x**3 = x + 1
    steps = torch.tensor([1 / root, 1 / root**2], dtype=torch.float64)
    points = (0.5 + torch.arange(1, num_points + 1)[:, None] * steps) % 1.0
    return points.float().clamp(0.01, 0.99)
