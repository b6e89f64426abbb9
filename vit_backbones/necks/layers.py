"""Layers shared by the necks: channel LayerNorm, and convolutions with norm and activation."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import build_activation_layer, build_norm_layer
from mmengine.registry import MODELS
from torch import Tensor, nn

from vit_backbones.errors import one_line

__all__ = ['LN2d', 'build_norm', 'conv_block']

_LN2D_EPS = 1e-6


@MODELS.register_module()
class LN2d(nn.LayerNorm):
    """LayerNorm over the channels of a feature map, at every position on its own.

    The norm of ConvNeXt and ViTDet. It computes the same as ``nn.LayerNorm(C)`` on the
    channels-last map, and like it accumulates half precision in fp32. Being an ``nn.LayerNorm``, it
    is a norm for ``norm_decay_mult`` of MMEngine's optimizer constructors too.

    In an OpenMMLab config it is ``norm_cfg=dict(type='LN2d')``. Beware that mmcv's
    ``build_norm_layer``, which mmdet's and mmseg's own layers call, fills in ``eps=1e-5`` where the
    config names none; ``build_norm`` here keeps 1e-6.

    Args:
        num_channels: Channels C of the map.
        eps: Added to the variance.
    """

    def __init__(self, num_channels: int, eps: float = _LN2D_EPS) -> None:
        super().__init__(num_channels, eps=eps)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise each position of a map over its channels.

        Args:
            input: Feature map (B, C, H, W).

        Returns:
            Tensor of the same shape, in channels-last memory: the next convolution takes it as it
            is, and copying it back after each norm made a pyramid's training step 15 % slower,
            measured on a CPU.
        """
        channels_last = input.permute(0, 2, 3, 1)  # (B, C, H, W) -> (B, H, W, C)
        normed = F.layer_norm(
            channels_last, self.normalized_shape, self.weight, self.bias, self.eps
        )
        return normed.permute(0, 3, 1, 2)  # (B, H, W, C) -> (B, C, H, W)


def build_norm(norm_cfg: dict[str, Any] | None, num_channels: int) -> nn.Module:
    """Build a norm layer from an OpenMMLab ``norm_cfg``, which stays unchanged; None is no norm.

    'LN2d' is this package's, with eps 1e-6, in whichever registry scope is active: others register
    a layer of that name too.
    """
    if norm_cfg is None:
        return nn.Identity()
    return _built('norm_cfg', norm_cfg, num_channels, partial(_norm_layer, norm_cfg, num_channels))


def _norm_layer(norm_cfg: Mapping[str, Any], num_channels: int) -> nn.Module:
    if norm_cfg.get('type') in ('LN2d', LN2d):
        norm_cfg = {'eps': _LN2D_EPS, **norm_cfg, 'type': LN2d}
    return build_norm_layer(dict(norm_cfg), num_channels)[1]


def _built(name: str, cfg: object, channels: int, build: Callable[[], nn.Module]) -> nn.Module:
    """A layer of a map's channels, tried on one; a `ValueError` if there is none such."""
    if not isinstance(cfg, Mapping):
        raise TypeError(f"{name} must be None or a dict as dict(type='...'), got {cfg!r}")
    try:
        layer = build()
        training = layer.training
        layer.eval()(torch.zeros(1, channels, 2, 2))
        return layer.train(training)
    except Exception as error:  # each layer refuses in its own way
        raise ValueError(
            f'{name}={cfg!r} gives no layer for maps of {channels} channels: {one_line(error)}'
        ) from error


def conv_block(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    norm_cfg: dict[str, Any] | None,
    act_cfg: dict[str, Any] | None,
) -> nn.Sequential:
    """Build a size-preserving convolution with norm and activation, in PyTorch's initialisation.

    mmcv's ``ConvModule`` is the same but for its Kaiming initialisation, which detectron2's
    pyramid does not have. The kernel is odd; the convolution has a bias only without a norm.
    """
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=norm_cfg is None
    )
    layers = OrderedDict[str, nn.Module](conv=conv)
    if norm_cfg is not None:
        layers['norm'] = build_norm(norm_cfg, out_channels)
    if act_cfg is not None:
        act = partial(build_activation_layer, act_cfg)
        layers['act'] = _built('act_cfg', act_cfg, out_channels, act)
    return nn.Sequential(layers)
