"""mmdet's pixel decoder of Mask2Former, with sizes as numbers instead of tensors."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet.models.layers import MSDeformAttnPixelDecoder
from torch import Tensor

from vit_backbones.hosts.deformable_attention import shapes_on
from vit_backbones.position import Grid


class GridPixelDecoder(MSDeformAttnPixelDecoder):
    """mmdet's, without a wait for the device; arguments, parameters and numbers are the same."""

    def forward(self, feats: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The finest map, for masks, and `num_outs` maps from the coarsest on.

        Args:
            feats: (B, C, h, w) of each level, the finest first.
        """
        coarse = feats[::-1][: self.num_encoder_levels]
        grids = [tuple(x.shape[-2:]) for x in coarse]
        memory = self._encoded(coarse, grids).transpose(1, 2)  # (B, C, sum of h*w)
        parts = memory.split([h * w for h, w in grids], dim=-1)
        outs = [part.unflatten(2, grid) for part, grid in zip(parts, grids, strict=True)]
        for index in range(self.num_input_levels - self.num_encoder_levels - 1, -1, -1):
            lateral = self.lateral_convs[index](feats[index])
            larger = F.interpolate(outs[-1], lateral.shape[-2:], mode='bilinear')
            outs.append(self.output_convs[index](lateral + larger))
        return self.mask_feature(outs[-1]), outs[: self.num_outs]

    def _encoded(self, maps: Sequence[Tensor], grids: Sequence[Grid]) -> Tensor:
        """(B, sum of h*w, C): the maps, one after another, by the encoder."""
        device, tokens, positions = maps[0].device, [], []
        for level, (feat, grid) in enumerate(zip(maps, grids, strict=True)):
            nothing = torch.zeros((1, *grid), dtype=torch.bool, device=device)
            position = self.postional_encoding(nothing) + self.level_encoding.weight[level].view(
                1, -1, 1, 1
            )
            positions.append(position.flatten(2))
            tokens.append(self.input_convs[level](feat).flatten(2))
        return self.encoder(
            query=torch.cat(tokens, 2).transpose(1, 2),
            query_pos=torch.cat(positions, 2).transpose(1, 2),
            key_padding_mask=None,
            spatial_shapes=shapes_on(device, grids),
            reference_points=_centres(grids, device),
            level_start_index=None,
            valid_ratios=None,
            grids=grids,
        )


def _centres(grids: Sequence[Grid], device: torch.device) -> Tensor:
    """(1, sum of h*w, 1, 2): x and y of every cell's centre, as parts of its map."""
    places = []
    for grid in grids:
        y, x = ((torch.arange(side, device=device) + 0.5) / side for side in grid)
        y, x = torch.meshgrid(y, x, indexing='ij')
        places.append(torch.stack([x, y], dim=-1).flatten(0, 1))
    return torch.cat(places)[None, :, None]
