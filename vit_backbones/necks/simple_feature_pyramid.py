"""ViTDet's simple feature pyramid, for one map, one map a level, or a hierarchical backbone."""

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from vit_backbones.arguments import LARGEST, check_type, integer, several

from .layers import build_norm, conv_block

__all__ = ['SimpleFeaturePyramid']

_MOST_POOLED = 8  # levels by `num_outs` beyond those of `out_strides`


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """Make maps of ``out_channels`` at ``out_strides`` from the feature maps of a backbone.

    Each level rescales one map by ``in_stride / out_stride``: up by transposed convolutions that
    halve the channels (norm and GELU between two of them), down by max pooling. Then come a 1x1
    and a 3x3 convolution, each with its norm. There are three uses, all by this one rule:

    - one map (``in_channels`` an int or one-element list): every level is made from it;
    - one map a level, from shallow to deep: the shallowest makes the finest stride;
    - a hierarchical backbone (``in_strides`` equal to ``out_strides``): nothing to rescale.

    Levels and their parameters (``levels.stride4...``) are keyed by stride, so the order of
    ``out_strides`` changes the order of the outputs and nothing else.

    Source: Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection", 2022,
    and its implementation in detectron2 (Apache-2.0); equal to that for one map of even height and
    width. Pooling rounds odd sizes up, where detectron2 drops the last row or column: a level of
    stride s then covers the whole image with ceil(H / s) x ceil(W / s) positions.

    Args:
        in_channels: Channels of the one map, or of each map. An int together with several
            ``in_strides`` holds for each of them.
        out_channels: Channels of every output.
        backbone_channel: Channels of the one map in configs of mmdet's ViTDet, whose
            `in_channels` are those after rescaling, `[C // 4, C // 2, C, C]`.
        in_strides: Stride in pixels of each map, ascending; an int holds for all.
        out_strides: Strides in pixels of the outputs, in the order wanted, without repetition. Each
            is a power of two times (or a fraction of) its input's stride.
        num_outs: Number of outputs, default ``len(out_strides)``. Those beyond it subsample the
            coarsest level by 2 each (P6, P7).
        norm_cfg: Norm layers: LN2d (eps 1e-6), GN, BN, SyncBN, ..., or None. Never written to.
        act_cfg: Activation after the 1x1 and the 3x3 convolution; ViTDet has none.
        init_cfg: MMEngine initialisation config; by default PyTorch's initialisation stays.

    Attributes:
        in_channels (tuple[int, ...]): Channels expected of each input.
        in_strides (tuple[int, ...]): Stride expected of each input.
        out_channels (int): Channels of every output.
        strides (tuple[int, ...]): Strides of all outputs in order, those of ``num_outs`` included.
        levels (nn.ModuleDict): Level by ``'stride{s}'``: ``rescale``, ``lateral`` (1x1), ``output``
            (3x3).

    Raises:
        ValueError: If the numbers of channels, strides and outputs do not match, a stride is
            repeated or not positive, ``in_strides`` descend, or a ratio is no power of two.
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        out_channels: int = 256,
        *,
        backbone_channel: int | None = None,
        in_strides: int | Sequence[int] = 16,
        out_strides: Sequence[int] = (4, 8, 16, 32),
        num_outs: int | None = None,
        norm_cfg: dict[str, Any] | None = dict(type='LN2d'),  # noqa: B006 (never written to)
        act_cfg: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if backbone_channel is not None:
            in_channels = _of_vitdet(backbone_channel, in_channels)
        self.in_channels, self.in_strides = _match_inputs(in_channels, in_strides)
        self.out_channels = integer('out_channels', out_channels, 1, LARGEST)
        out_strides = several('out_strides', out_strides, 1, LARGEST)
        self.strides = _extend_strides(out_strides, num_outs)

        ascending = sorted(out_strides)
        octaves = _octaves(self.in_strides, ascending)
        channels = self.in_channels * (len(ascending) // len(self.in_channels))
        self.levels = nn.ModuleDict()
        for stride, num_octaves, level_channels in zip(ascending, octaves, channels, strict=True):
            rescale, width = _rescale(level_channels, num_octaves, norm_cfg)
            convs = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
            self.levels[f'stride{stride}'] = nn.Sequential(
                OrderedDict(
                    rescale=rescale,
                    lateral=conv_block(width, out_channels, 1, **convs),
                    output=conv_block(out_channels, out_channels, 3, **convs),
                )
            )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Make the pyramid.

        Args:
            inputs: Feature maps (B, C, h, w) in the order of ``in_strides``, shallow to deep.

        Returns:
            Maps (B, out_channels, h', w') in the order of ``strides``, contiguous; h' is
            h * in_stride / stride, rounded up.

        Raises:
            TypeError: If ``inputs`` is one tensor instead of a sequence of them.
            ValueError: If the number, rank or channels of the maps are not those built for.
        """
        self._check_inputs(inputs)
        sources = tuple(inputs) * (len(self.levels) // len(inputs))
        ascending = sorted(self.strides[: len(self.levels)])
        # LN2d leaves channels-last memory; mmcv's compiled RoIAlign takes any as (B, C, H, W).
        maps = {
            stride: level(source).contiguous()
            for stride, level, source in zip(ascending, self.levels.values(), sources, strict=True)
        }
        for stride in self.strides[len(self.levels) :]:
            maps[stride] = F.max_pool2d(maps[stride // 2], kernel_size=1, stride=2)
        return tuple(maps[stride] for stride in self.strides)

    def _check_inputs(self, inputs: Sequence[Tensor]) -> None:
        if isinstance(inputs, Tensor):
            raise TypeError(
                'SimpleFeaturePyramid takes a tuple of feature maps, got one tensor of shape '
                f'{tuple(inputs.shape)}: pass (tensor,).'
            )
        if not isinstance(inputs, Sequence) or not all(isinstance(m, Tensor) for m in inputs):
            raise TypeError('SimpleFeaturePyramid takes a tuple of feature maps, got no tensors')
        shapes = [tuple(source.shape) for source in inputs]
        channels = tuple(shape[1] if len(shape) == 4 else None for shape in shapes)
        if channels != self.in_channels:
            raise ValueError(
                f'expected {len(self.in_channels)} feature map(s) (B, C, h, w) with C = '
                f'{self.in_channels}, got {len(shapes)} of shape {shapes}: set in_channels to the '
                "backbone's out_channels, one entry an out_index, and its out_type to 'featmap'."
            )
        if not all(shape[2] and shape[3] for shape in shapes):
            raise ValueError(f'feature maps need at least one row and column, got {shapes}')
        for source in inputs:
            check_type('feature maps', source, self)


def _of_vitdet(channels: int, rescaled: int | Sequence[int]) -> int:
    """Channels of the one map that mmdet's ViTDet describes by those of its rescaled versions."""
    channels = integer('backbone_channel', channels, 1, LARGEST)
    expected = [channels // 4, channels // 2, channels, channels]
    if rescaled != channels and not (isinstance(rescaled, Iterable) and list(rescaled) == expected):
        raise ValueError(
            f'backbone_channel={channels} goes with in_channels={expected}, got {rescaled}: leave '
            f'backbone_channel out for maps of several layers'
        )
    return channels


def _match_inputs(
    in_channels: int | Sequence[int], in_strides: int | Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Spread an int over the entries of the other argument, and check the result."""
    channels = _ints('in_channels', in_channels)
    strides = _ints('in_strides', in_strides)
    if isinstance(in_channels, Integral):
        channels *= len(strides)
    if isinstance(in_strides, Integral):
        strides *= len(channels)
    if len(channels) != len(strides):
        raise ValueError(
            f'in_channels={channels} and in_strides={strides} must have one entry an input each, '
            f'got {len(channels)} and {len(strides)}.'
        )
    if list(strides) != sorted(strides):
        raise ValueError(
            f'in_strides={strides} must ascend: inputs run from shallow to deep. Reorder the '
            "backbone's out_indices."
        )
    return channels, strides


def _ints(name: str, value: int | Sequence[int]) -> tuple[int, ...]:
    return several(name, value if isinstance(value, Iterable) else [value], 1, LARGEST)


def _extend_strides(out_strides: tuple[int, ...], num_outs: int | None) -> tuple[int, ...]:
    """Append to ``out_strides`` those of the pooled levels that ``num_outs`` asks for."""
    if len(set(out_strides)) < len(out_strides):
        raise ValueError(f'out_strides={out_strides} must be different')
    given = len(out_strides)
    outs = given if num_outs is None else integer('num_outs', num_outs, 1, given + _MOST_POOLED)
    num_extra = outs - given
    if num_extra < 0:
        raise ValueError(
            f'num_outs={num_outs} must be at least {len(out_strides)}, the number of '
            f'out_strides={out_strides}: drop the strides that are not wanted.'
        )
    coarsest = max(out_strides)
    return out_strides + tuple(coarsest * 2**i for i in range(1, num_extra + 1))


def _octaves(in_strides: tuple[int, ...], out_strides: list[int]) -> list[int]:
    """Return log2(in_stride / out_stride) of each out stride: how often to double its input."""
    if len(in_strides) not in (1, len(out_strides)):
        raise ValueError(
            f'{len(in_strides)} inputs cannot make {len(out_strides)} levels: give 1 or '
            f'{len(out_strides)} inputs (in_strides={in_strides}, out_strides={out_strides}).'
        )
    sources = in_strides * (len(out_strides) // len(in_strides))
    ratios = [source / out for source, out in zip(sources, out_strides, strict=True)]
    if not all(ratio > 0 and math.log2(ratio).is_integer() for ratio in ratios):
        raise ValueError(
            f'in_strides={in_strides} over out_strides={out_strides} must be powers of two, got '
            f'{ratios}: give the backbone `out_stride=16`, and in_strides=16 here.'
        )
    return [int(math.log2(ratio)) for ratio in ratios]


def _rescale(
    channels: int, octaves: int, norm_cfg: dict[str, Any] | None
) -> tuple[nn.Sequential, int]:
    """Build the layers that scale a map by 2**octaves, and return the channels of their output."""
    if octaves < 0:
        factor = 2**-octaves
        return nn.Sequential(nn.MaxPool2d(factor, factor, ceil_mode=True)), channels
    if channels < 2**octaves:
        raise ValueError(
            f'in_channels={channels} cannot be halved {octaves} times: give maps of at least '
            f'{2**octaves} channels, or coarser out_strides'
        )
    layers = nn.Sequential()
    for octave in range(octaves):
        if octave > 0:
            layers.extend([build_norm(norm_cfg, channels), nn.GELU()])
        layers.append(nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2))
        channels //= 2
    return layers, channels
