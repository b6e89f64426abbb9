"""Whether the parts of a built model fit: what the backbone gives against what the rest takes."""

import logging
from collections.abc import Sequence

import torch
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from torch import nn

from vit_backbones.backbone import ViTFeatBackbone
from vit_backbones.necks import SimpleFeaturePyramid, ViTAdapter

_TAKERS = ('neck', 'decode_head', 'panoptic_head', 'rpn_head', 'roi_head', 'bbox_head', 'mask_head')
_PIXELS = 1.0  # of 255: rounding in configs is no mistake
_ADVICE = {
    ('strides', 'backbone'): ', for patch 14 by out_stride=16',
    ('strides', 'neck'): ', by out_strides= and num_outs= of the neck',
}
# Where mmdet's heads keep the strides that they were configured for
_STRIDED = (
    ('panoptic_head', 'pixel_decoder'),
    ('rpn_head', 'prior_generator'),
    ('bbox_head', 'prior_generator'),
)


def check_wiring(model: nn.Module) -> None:
    """Refuse a model whose neck or head would get the wrong tensors from a `ViTFeatBackbone`.

    Args:
        model: A built detector or segmenter; models without a `ViTFeatBackbone` pass.

    Raises:
        ValueError: If the outputs are no feature maps, or their number, channels or strides differ
            from what the next part takes; both are named.
    """
    model = model.module if is_model_wrapper(model) else model
    backbone = getattr(model, 'backbone', None)
    takers = [name for name in _TAKERS if getattr(model, name, None) is not None]
    vit = _vit(backbone)
    if vit is None or not takers:
        return
    if vit.pool is not None or vit.out_type != 'featmap':
        form = 'out_type' if vit.pool is None else 'pool'
        raise ValueError(
            f'backbone.{form}={getattr(vit, form)!r} under a {takers[0]}, which takes feature '
            f"maps: use out_type='featmap' and no pool"
        )
    if vit.masks_padding and not hasattr(model.data_preprocessor, 'tells_image_sizes'):
        raise ValueError(
            'backbone.mask_padding=True, but the data_preprocessor does not tell where images end: '
            "use type='SizedDetDataPreprocessor' (vit_backbones.training.padding.detection in "
            "custom_imports), or 'SizedSegDataPreProcessor' (...segmentation)"
        )
    channels, strides = backbone.out_channels, backbone.strides
    giver = 'backbone'
    if 'neck' in takers:
        neck = model.neck
        _compare('channels', giver, channels, 'neck.in_channels', _listed(neck, 'in_channels'))
        _compare('strides', giver, strides, 'neck.in_strides', _listed(neck, 'in_strides'))
        if not isinstance(neck, SimpleFeaturePyramid):
            return
        giver, strides = 'neck', neck.strides
        channels = (neck.out_channels,) * len(strides)
    for name in ('decode_head', 'auxiliary_head'):
        heads = getattr(model, name, None)
        for head in heads if isinstance(heads, nn.ModuleList) else [heads]:
            if head is not None:
                _check_decode_head(name, head, giver, channels)
    _check_strides(model, giver, strides)


def _vit(backbone: nn.Module | None) -> ViTFeatBackbone | None:
    """The ViT of a backbone, `None` for others."""
    inner = backbone.backbone if isinstance(backbone, ViTAdapter) else backbone
    return inner if isinstance(inner, ViTFeatBackbone) else None


def _check_strides(model: nn.Module, giver: str, strides: Sequence) -> None:
    for name, part in _STRIDED:
        taken = getattr(getattr(getattr(model, name, None), part, None), 'strides', None)
        if taken is None:
            continue
        taken = _square(taken)
        if name == 'panoptic_head' and giver == 'backbone' and list(strides) != list(taken):
            print_log(
                f'the backbone gives maps of strides {list(strides)} to a {name} for '
                f'{list(taken)}: it runs, since its points are relative to each map, but a '
                f'SimpleFeaturePyramid between them gives it fine maps',
                logger='current',
                level=logging.WARNING,
            )
        else:
            _compare('strides', giver, strides, f'{name}.{part}', taken)


def warn_of_preprocessing(model: nn.Module) -> None:
    """Log a warning if images are not normalised as the backbone's weights expect.

    Args:
        model: A built detector or segmenter. Models without a `ViTFeatBackbone` that holds
            pretrained weights, or with a preprocessor that does not normalise, pass.
    """
    model = model.module if is_model_wrapper(model) else model
    backbone = _vit(getattr(model, 'backbone', None))
    preprocessor = getattr(model, 'data_preprocessor', None)
    if backbone is None or not backbone.holds_weights:
        return
    expected = backbone.preprocess
    for name in ('mean', 'std'):
        given = getattr(preprocessor, name, None)
        if given is None or given.numel() != len(expected[name]):
            continue
        if (given.flatten().cpu() - torch.tensor(expected[name])).abs().max() > _PIXELS:
            values = [round(value, 2) for value in given.flatten().tolist()]
            print_log(
                f'data_preprocessor.{name} is {values}, but the weights of {backbone.model_name} '
                f'expect {expected[name]}, RGB on 0-255: set mean and std to backbone.preprocess',
                logger='current',
                level=logging.WARNING,
            )


def _square(strides: Sequence) -> tuple:
    """mmdet's generators hold strides as pairs (horizontal, vertical)."""
    pairs = (
        stride if isinstance(stride, (list, tuple)) else (stride, stride) for stride in strides
    )
    return tuple(x if x == y else (y, x) for x, y in pairs)


def _check_decode_head(name: str, head: nn.Module, giver: str, channels: Sequence[int]) -> None:
    """Compare with the maps that an mmseg head picks by `in_index`."""
    picked = _listed(head, 'in_index') or tuple(range(len(channels)))
    if not all(-len(channels) <= index < len(channels) for index in picked):
        raise ValueError(
            f'{name}.in_index={list(picked)}, but the {giver} gives {len(channels)} maps'
        )
    given = [channels[index] for index in picked]
    if getattr(head, 'input_transform', None) == 'resize_concat':
        given = [sum(given)]
    _compare('channels', giver, given, f'{name}.in_channels', _listed(head, 'in_channels'))


def _listed(module: nn.Module, name: str) -> tuple | None:
    value = getattr(module, name, None)
    if value is None:
        return None
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _compare(
    what: str, giver: str, given: Sequence[int], taker: str, taken: Sequence[int] | None
) -> None:
    if taken is not None and list(given) != list(taken):
        raise ValueError(
            f'the {giver} gives maps of {what} {list(given)}, but {taker} is {list(taken)}: make '
            f'them equal' + _ADVICE.get((what, giver), '')
        )
