"""One training step on two drawn images, to find what only a step tells."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData
from torch import nn

from vit_backbones.checks import finds_unused
from vit_backbones.findings import Finding, describe, error, warning
from vit_backbones.wiring import vit_of

_SIZE = (64, 96)  # of the images, in pixels; not square, so that no side is taken for the other
_NAMED = 3


def trial_findings(config: Config, model: nn.Module) -> Iterator[Finding]:
    """Whether a training step works, and reaches every parameter.

    Args:
        config: The merged config.
        model: Built from it, a detector of mmdet or a segmenter of mmseg; it keeps the gradients.
    """
    samples = _samples(model, size := _image_size(model))
    if samples is None:
        yield warning(
            f'no training step was tried: {type(model).__name__} is neither of mmdet nor of mmseg'
        )
        return
    try:
        _step(model, size, samples)
    except Exception as raised:  # anything may be wrong in a model
        yield error(f'a training step on two drawn images fails: {describe(raised)}')
        return
    learning = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    unused = [name for name, parameter in learning if parameter.grad is None]
    if unused and not finds_unused(config):
        more = f' and {len(unused) - _NAMED} more' if len(unused) > _NAMED else ''
        yield warning(
            f'{len(unused)} of {len(learning)} parameters get no gradient '
            f'({", ".join(unused[:_NAMED])}{more}), which stops a training in several processes: '
            f'leave these parts out, or set find_unused_parameters=True'
        )
    elif finds_unused(config) and not unused and not getattr(model, 'auxiliary_iters', 0):
        yield warning(
            'find_unused_parameters=True costs time in every step, and every parameter gets a '
            'gradient: leave it out'
        )


def _step(model: nn.Module, size: tuple[int, int], samples: list[Any]) -> None:
    """Forward and backward, by the head too where the model leaves it out at first."""
    vit = vit_of(model)
    first_iters = getattr(model, 'auxiliary_iters', None)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        images = torch.randn(2, getattr(vit, 'in_channels', 3), *size)  # (B, C, H, W)
        try:
            if first_iters:
                model.auxiliary_iters = 0
            losses = model.train()(images, samples, mode='loss')
        finally:
            if first_iters:
                model.auxiliary_iters = first_iters
        model.parse_losses(losses)[0].backward()


def _image_size(model: nn.Module) -> tuple[int, int]:
    vit = vit_of(model)
    return (vit.source.fixed_size(vit.vit) if vit else None) or _SIZE


def _samples(model: nn.Module, size: tuple[int, int]) -> list[Any] | None:
    """Ground truth of two images with a rectangle each, `None` for a model of another toolbox."""
    toolboxes = {base.__module__.split('.')[0] for base in type(model).__mro__}
    make = _segments if 'mmseg' in toolboxes else _objects if 'mmdet' in toolboxes else None
    if make is None:
        return None
    mask = np.zeros(size, bool)
    mask[size[0] // 4 : size[0] * 3 // 4, size[1] // 4 : size[1] * 3 // 4] = True
    shapes = dict(img_shape=size, ori_shape=size, batch_input_shape=size, pad_shape=size)
    return [make(model, mask, shapes | {'scale_factor': (1.0, 1.0)}) for _ in range(2)]


def _segments(model: nn.Module, mask: np.ndarray, shapes: dict[str, Any]) -> Any:
    from mmseg.structures import SegDataSample

    sample = SegDataSample(metainfo=shapes)
    sample.gt_sem_seg = PixelData(data=torch.from_numpy(mask.astype(np.int64))[None])
    return sample


def _objects(model: nn.Module, mask: np.ndarray, shapes: dict[str, Any]) -> Any:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    height, width = mask.shape
    sample = DetDataSample(metainfo=shapes)
    box = [width // 4, height // 4, width * 3 // 4, height * 3 // 4]
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([box], dtype=torch.float32),
        labels=torch.tensor([0]),
        masks=BitmapMasks(mask[None].astype(np.uint8), height, width),
    )
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long())
    things = getattr(getattr(model, 'panoptic_head', None), 'num_things_classes', 1)
    stuff = np.where(mask, 0, things)  # the first kind of stuff around the object
    sample.gt_sem_seg = PixelData(sem_seg=torch.from_numpy(stuff.astype(np.int64))[None])
    return sample
