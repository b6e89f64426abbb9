"""ViT-Adapter: convolutions see the image beside a ViT and take in its maps by cross-attention."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from timm.layers import DropPath
from torch import Tensor, nn

from vit_backbones.hosts.deformable_attention import shapes_on
from vit_backbones.position import Grid, resample_map

from .layers import build_norm

__all__ = ['ViTAdapter']

_STRIDES = (4, 8, 16, 32)
_EPS = 1e-6


@MODELS.register_module()
class ViTAdapter(BaseModule):
    """A plain ViT with a pyramid of strides 4 to 32 beside it, to stand as a config's `backbone`.

    A stem of convolutions makes maps of the image at the four strides. Those of strides 8, 16 and
    32 are queries: at every layer of the ViT that is given, each looks at four places of that
    layer's map, which it chooses itself (deformable attention), and passes a small convolutional
    MLP. The layers' maps are added to the four strides in the end, each is normed.

    Gradients reach the ViT as far as its `frozen_stages` let them.

    Source: Chen et al., Vision Transformer Adapter for Dense Predictions (arXiv 2205.08534), in the
    form of DINOv3 (arXiv 2508.10104), which reads the ViT and never writes into it. Positions are
    those of pixels, so any patch size and any image is met exactly; where sides are multiples of 32
    and the patch is 16 they are those of the original.

    Args:
        backbone: Config of a `ViTFeatBackbone` with four `out_indices` of equal channels, as
            `dict(type='ViTFeatBackbone', model_name=..., out_indices='even4', norm='none')`.
        conv_channels: Channels of the stem.
        num_heads: Heads of the deformable attention; divides the ViT's channels.
        num_points: Places at which each head looks.
        value_ratio: Channels of its values, as a part of the ViT's.
        ffn_ratio: Channels within the MLP, likewise.
        num_extra: More attentions to the last layer.
        drop_path_rate: Stochastic depth rate of the MLPs.
        norm_cfg: Norm of the stem's convolutions and of the outputs; SyncBN in the original.
        init_cfg: As in MMEngine.

    Attributes:
        out_channels: Channels of each map, the ViT's.
        strides: (4, 8, 16, 32).

    Raises:
        ValueError: If the backbone does not give four maps of equal channels, or heads do not
            divide the channels.
    """

    strides = _STRIDES

    def __init__(
        self,
        backbone: dict[str, Any] | nn.Module,
        *,
        conv_channels: int = 64,
        num_heads: int = 16,
        num_points: int = 4,
        value_ratio: float = 0.5,
        ffn_ratio: float = 0.25,
        num_extra: int = 2,
        drop_path_rate: float = 0.0,
        norm_cfg: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        norm_cfg = norm_cfg or {'type': 'BN'}
        self.backbone = MODELS.build(backbone) if isinstance(backbone, dict) else backbone
        channels = self._checked_channels(num_heads, value_ratio)
        self.out_channels = (channels,) * 4
        self.prior = SpatialPrior(self.backbone.in_channels, conv_channels, channels, norm_cfg)
        self.level_embed = nn.Parameter(torch.empty(3, channels).normal_())
        attention = dict(num_heads=num_heads, num_points=num_points, value_ratio=value_ratio)
        self.extractors = nn.ModuleList(
            Extractor(channels, ffn_ratio=ffn_ratio, drop_path_rate=drop_path_rate, **attention)
            for _ in range(4 + num_extra)
        )
        self.up = nn.ConvTranspose2d(channels, channels, 2, 2)
        self.norms = nn.ModuleList(build_norm(norm_cfg, channels) for _ in range(4))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Make the pyramid.

        Args:
            images: (B, in_channels, H, W), normalised with `preprocess`.

        Returns:
            Maps (B, out_channels, ceil(H / s), ceil(W / s)), s = 4, 8, 16, 32.
        """
        layers = self.backbone(images)
        finest, *maps = self.prior(images)
        grids = [tuple(m.shape[-2:]) for m in maps]
        # (B, C, h, w) -> (B, h*w, C), three levels in a row
        queries = torch.cat(
            [m.flatten(2).transpose(1, 2) + e for m, e in zip(maps, self.level_embed, strict=True)],
            dim=1,
        )
        patches = [(s, s) if isinstance(s, int) else s for s in self.backbone.strides]
        for index, extractor in enumerate(self.extractors):
            at = min(index, 3)
            queries = extractor(queries, grids, layers[at], patches[at])
        parts = queries.split([h * w for h, w in grids], dim=1)
        maps = [
            part.transpose(1, 2).unflatten(2, grid) for part, grid in zip(parts, grids, strict=True)
        ]
        rows, columns = finest.shape[-2:]
        maps = [finest + self.up(maps[0])[..., :rows, :columns], *maps]
        return tuple(
            norm(m + resample_map(layer, m.shape[-2:], (stride / patch[0], stride / patch[1])))
            for norm, m, layer, stride, patch in zip(
                self.norms, maps, layers, _STRIDES, patches, strict=True
            )
        )

    @property
    def preprocess(self) -> dict[str, object] | None:
        """See `ViTFeatBackbone.preprocess`."""
        return self.backbone.preprocess

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """See `ViTFeatBackbone.get_layer_depth`; the adapter's own parameters count as a head."""
        return self.backbone.get_layer_depth(param_name, f'{prefix}backbone.')

    def _checked_channels(self, num_heads: int, value_ratio: float) -> int:
        vit, channels = self.backbone, set(self.backbone.out_channels)
        if vit.pool is not None or vit.out_type != 'featmap':
            raise ValueError(
                f'ViTAdapter takes feature maps, the backbone has out_type={vit.out_type!r} and '
                f'pool={vit.pool!r}: leave both out'
            )
        if len(self.backbone.out_channels) != 4 or len(channels) != 1:
            raise ValueError(
                f'ViTAdapter takes four maps of equal channels, the backbone gives channels '
                f"{list(self.backbone.out_channels)}: set its out_indices='even4', with a plain ViT"
            )
        (width,) = channels
        if width % num_heads or int(width * value_ratio) % num_heads:
            raise ValueError(
                f'num_heads={num_heads} does not divide the {width} channels of the ViT and the '
                f'{int(width * value_ratio)} of the values: choose another'
            )
        return width


class SpatialPrior(nn.Module):
    """Maps of an image at strides 4 to 32 by 3x3 convolutions, as wide as the ViT.

    The first convolutions have `width` channels, the others 2, 4 and 4 times as many.
    """

    def __init__(
        self, in_channels: int, width: int, out_channels: int, norm_cfg: dict[str, Any]
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *_conv(in_channels, width, 2, norm_cfg),
            *_conv(width, width, 1, norm_cfg),
            *_conv(width, width, 1, norm_cfg),
            nn.MaxPool2d(3, 2, padding=1),
        )
        widths = (width, 2 * width, 4 * width, 4 * width)
        self.stages = nn.ModuleList(
            nn.Sequential(*_conv(a, b, 2, norm_cfg)) for a, b in pairwise(widths)
        )
        self.projections = nn.ModuleList(nn.Conv2d(w, out_channels, 1) for w in widths)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, in_channels, H, W) to four maps (B, out_channels, ceil(H / s), ceil(W / s))."""
        maps = [self.stem(images)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return [project(m) for project, m in zip(self.projections, maps, strict=True)]


class Extractor(nn.Module):
    """Takes features of a map into queries: deformable attention, then a convolutional MLP.

    Queries and map have `channels`; the other arguments are those of `ViTAdapter`.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_heads: int,
        num_points: int,
        value_ratio: float,
        ffn_ratio: float,
        drop_path_rate: float,
    ) -> None:
        super().__init__()
        # heavy, as mmcv's operators are; only who uses it pays for it
        from vit_backbones.hosts.deformable_layers import PreciseDeformableAttention

        self.query_norm = nn.LayerNorm(channels, eps=_EPS)
        self.map_norm = nn.LayerNorm(channels, eps=_EPS)
        self.attention = PreciseDeformableAttention(
            channels,
            num_heads,
            num_levels=1,
            num_points=num_points,
            dropout=0.0,
            batch_first=True,
            value_proj_ratio=value_ratio,
        )
        hidden = int(channels * ffn_ratio)
        self.ffn_norm = nn.LayerNorm(channels, eps=_EPS)
        self.fc1 = nn.Linear(channels, hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = nn.Linear(hidden, channels)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, queries: Tensor, grids: Sequence[Grid], layer: Tensor, patch: Grid) -> Tensor:
        """Update the queries.

        Args:
            queries: (B, sum of h*w, C) at strides 8, 16, 32.
            grids: (h, w) of each stride.
            layer: (B, C, h, w), a map of the ViT.
            patch: Its stride (vertical, horizontal).
        """
        grid = tuple(layer.shape[-2:])
        queries = self.attention(
            self.query_norm(queries),
            value=self.map_norm(layer.flatten(2).transpose(1, 2)),
            identity=queries,
            reference_points=_places(grids, grid, patch, layer.device),
            spatial_shapes=shapes_on(layer.device, [grid]),
            grids=[grid],
        )
        return queries + self.drop_path(self._ffn(self.ffn_norm(queries), grids))

    def _ffn(self, x: Tensor, grids: Sequence[Grid]) -> Tensor:
        parts = self.fc1(x).split([h * w for h, w in grids], dim=1)
        mixed = [
            self.dwconv(part.transpose(1, 2).unflatten(2, grid)).flatten(2).transpose(1, 2)
            for part, grid in zip(parts, grids, strict=True)
        ]
        return self.fc2(nn.functional.gelu(torch.cat(mixed, dim=1)))


def _conv(
    in_channels: int, out_channels: int, stride: int, norm_cfg: dict[str, Any]
) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
        build_norm(norm_cfg, out_channels),
        nn.ReLU(inplace=True),
    ]


def _places(grids: Sequence[Grid], grid: Grid, patch: Grid, device: torch.device) -> Tensor:
    """(1, sum of h*w, 1, 2): (x, y) of the queries' centres as parts of a map's extent."""
    height, width = (cells * step for cells, step in zip(grid, patch, strict=True))
    places = []
    for stride, (rows, columns) in zip(_STRIDES[1:], grids, strict=True):
        y = (torch.arange(rows, device=device) + 0.5) * (stride / height)
        x = (torch.arange(columns, device=device) + 0.5) * (stride / width)
        y, x = torch.meshgrid(y, x, indexing='ij')
        places.append(torch.stack([x, y], dim=-1).flatten(0, 1))
    return torch.cat(places)[None, :, None]
