"""mmcv's layer of deformable attention with places in fp32 under autocast, and without waits."""

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.ops import MultiScaleDeformableAttention
from torch import Tensor, nn

from vit_backbones.hosts.deformable_attention import deformable_attention, wide
from vit_backbones.position import Grid


class PreciseDeformableAttention(MultiScaleDeformableAttention):
    """mmcv's layer, whose numbers it has in fp32, with the same arguments and parameters.

    Under autocast, offsets, weights and places are fp32: in bf16 a place on a map 256 wide is half
    a pixel off. Values have the type of autocast.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        identity: Tensor | None = None,
        query_pos: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        reference_points: Tensor | None = None,
        spatial_shapes: Tensor | None = None,
        level_start_index: Tensor | None = None,
        *,
        grids: Sequence[Grid] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """See mmcv; `grids` are `spatial_shapes` as numbers, without which a CPU waits for those.

        `reference_points` may have 1 in the place of any number but the last.
        """
        value = query if value is None else value
        identity = query if identity is None else identity
        query = query if query_pos is None else query + query_pos
        if not self.batch_first:
            query, value = query.transpose(0, 1), value.transpose(0, 1)
        values = self.value_proj(value)
        if key_padding_mask is not None:
            values = values.masked_fill(key_padding_mask[..., None], 0.0)
        values = values.unflatten(2, (self.num_heads, -1))
        with torch.autocast(query.device.type, enabled=False):
            places, weights = self._looks(wide(query), wide(reference_points), spatial_shapes)
        out = deformable_attention(values, spatial_shapes, places, weights, grids=grids)
        out = self.output_proj(out)
        return self.dropout(out if self.batch_first else out.transpose(0, 1)) + identity

    def _looks(self, query: Tensor, reference: Tensor, shapes: Tensor) -> tuple[Tensor, Tensor]:
        """Places (B, Q, heads, levels, points, 2) and weights (B, Q, heads, levels, points)."""
        counts = self.num_heads, self.num_levels, self.num_points
        weights = _linear(self.attention_weights, query).unflatten(2, (self.num_heads, -1))
        weights = weights.softmax(-1).unflatten(3, counts[1:])
        offsets = _linear(self.sampling_offsets, query).unflatten(2, (*counts, 2))
        around = reference[:, :, None, :, None, :]
        if reference.shape[-1] == 2:
            return around + offsets / shapes.flip(-1)[:, None], weights
        if reference.shape[-1] == 4:
            return around[..., :2] + offsets / self.num_points * around[..., 2:] * 0.5, weights
        raise ValueError(
            f'reference_points must have 2 or 4 numbers last, got {reference.shape[-1]}: give '
            'points (x, y) or boxes (x, y, w, h)'
        )


def precise(module: nn.Module) -> None:
    """Turn each of mmcv's layers in a module into `PreciseDeformableAttention`."""
    for layer in module.modules():
        if type(layer) is MultiScaleDeformableAttention:
            layer.__class__ = PreciseDeformableAttention


def _linear(layer: nn.Module, x: Tensor) -> Tensor:
    """fp32 of a layer, whose parameters may be of a half type."""
    return wide(layer(x.to(layer.weight.dtype)))
