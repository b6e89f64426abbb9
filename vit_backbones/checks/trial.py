"""One training step on two drawn images, for mistakes that only a step shows."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData
from torch import nn

from vit_backbones.checks.findings import Finding, error, warning
from vit_backbones.checks.wiring import vit_of
from vit_backbones.config.explain import describe
from vit_backbones.config.facts import Facts, learns_masks
from vit_backbones.errors import some

_SIZE = (64, 96)  # of the images, in pixels; not square, so that no side is taken for the other
_LARGE = (256, 384)
_NAMED = 3
_OTHER_DATA = ('SemiBaseDetector', 'BaseMOTModel')  # several images each: mmdet's others


def trial_findings(facts: Facts, model: nn.Module) -> Iterator[Finding]:
    """Whether a training step works and reaches every parameter; `model` keeps the gradients."""
    for size in _image_sizes(model):
        samples = data_samples(facts.config, model, size)
        if samples is None:
            yield warning(
                f'no training step was tried: {type(model).__name__} takes other data than the '
                f'detectors of mmdet and the segmenters of mmseg'
            )
            return
        try:
            _step(model, size, samples)
            break
        except Exception as raised:  # each class has its own
            failure = describe(raised)
    else:
        yield error(f'a training step on two drawn images fails: {failure}')
        return
    yield from _gradient_findings(facts, model)
    yield from _idle_findings(facts, model)


def _gradient_findings(facts: Facts, model: nn.Module) -> Iterator[Finding]:
    """Whether a step reached every parameter."""
    learning = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    unused = [name for name, parameter in learning if parameter.grad is None]
    if unused and not facts.finds_unused:
        more = f' and {len(unused) - _NAMED} more' if len(unused) > _NAMED else ''
        yield warning(
            f'{len(unused)} of {len(learning)} parameters get no gradient '
            f'({", ".join(unused[:_NAMED])}{more}), which stops a training in several processes: '
            f'leave these parts out, or set find_unused_parameters=True'
        )
    elif facts.finds_unused and not unused and not getattr(model, 'auxiliary_iters', 0):
        yield warning(
            'find_unused_parameters=True costs time in every step, and every parameter gets a '
            'gradient: leave it out'
        )


def _idle_findings(facts: Facts, model: nn.Module) -> Iterator[Finding]:
    """Whether weights of zero behind a layer keep LoRA's update of it from learning."""
    if facts.load_from or facts.chain[-1].get('drop_path_rate'):  # other weights; blocks left out
        return
    ups = {name: p.grad for name, p in model.named_parameters() if '.lora_B.' in name}
    if idle := [name for name, grad in ups.items() if grad is not None and not grad.any()]:
        yield warning(
            f'{len(idle)} of {len(ups)} updates of LoRA get a gradient of zero ({some(idle)}): '
            f'weights behind these layers are zero, and the updates would never learn; leave the '
            f'layers out of lora.targets, or start from other weights'
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


def _image_sizes(model: nn.Module) -> list[tuple[int, int]]:
    """(H, W) to try until one works: some models have more queries than a small image has cells."""
    vit = vit_of(model)
    fixed = vit.fixed_size if vit else None
    padded = getattr(getattr(model, 'data_preprocessor', None), 'size', None)
    return [fixed] if fixed else [_SIZE, tuple(padded or _LARGE)]


def data_samples(
    config: Config, model: nn.Module, size: tuple[int, int], count: int = 2, objects: int = 1
) -> list[Any] | None:
    """Data samples of mmdet or mmseg for `count` images of `size` (H, W), with rectangles in each.

    The rectangles are `objects` of the first classes. `None` where a model takes other data.
    """
    bases = type(model).__mro__
    toolboxes = {base.__module__.split('.')[0] for base in bases}
    make = _segments if 'mmseg' in toolboxes else _objects if 'mmdet' in toolboxes else None
    if make is None or any(base.__name__ in _OTHER_DATA for base in bases):
        return None
    boxes = _rectangles(size, objects)
    shapes = dict(img_shape=size, ori_shape=size, batch_input_shape=size, pad_shape=size)
    samples = [make(model, boxes, shapes | {'scale_factor': (1.0, 1.0)}) for _ in range(count)]
    if make is _objects and not learns_masks(config.get('train_dataloader')):
        for sample in samples:
            del sample.gt_instances.masks
    return samples


def _rectangles(size: tuple[int, int], count: int) -> np.ndarray:
    """(count, 4) corners x, y, x, y of rectangles, from the centre down to the right, smaller."""
    corners = np.array([size[1], size[0], size[1], size[0]])
    first = corners * (1, 1, 3, 3) // 4
    place, scale = np.arange(count)[:, None] / count, 1 / np.arange(1, count + 1)[:, None]
    begins = first[:2] + (place * corners[:2] / 2).astype(int)
    sides = np.maximum(((first[2:] - first[:2]) * scale).astype(int), 1)
    return np.hstack([begins, np.minimum(begins + sides, corners[2:])])


def _masks(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(N, H, W), 1 within each box."""
    masks = np.zeros((len(boxes), *size), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = 1
    return masks


def _labels(model: nn.Module, count: int) -> np.ndarray:
    """Classes of objects, the first ones of the head, all 0 without a number of them."""
    for name in ('num_things_classes', 'num_classes'):
        known = [getattr(module, name, None) for module in model.modules()]
        if numbers := [each for each in known if isinstance(each, int)]:
            return np.arange(count) % max(1, *numbers)
    return np.zeros(count, int)


def _segments(model: nn.Module, boxes: np.ndarray, shapes: dict[str, Any]) -> Any:
    from mmseg.structures import SegDataSample

    size = shapes['img_shape']
    classes, labels = np.zeros(size, np.int64), _labels(model, len(boxes) + 1)[1:]
    for mask, label in zip(_masks(boxes, size), labels, strict=True):
        classes[mask > 0] = label
    sample = SegDataSample(metainfo=shapes)
    sample.gt_sem_seg = PixelData(data=torch.from_numpy(classes)[None])
    sample.gt_edge_map = sample.gt_sem_seg.clone()  # for the few models that learn edges
    return sample


def _objects(model: nn.Module, boxes: np.ndarray, shapes: dict[str, Any]) -> Any:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    size = shapes['img_shape']
    masks = _masks(boxes, size)
    sample = DetDataSample(metainfo=shapes)
    sample.gt_instances = InstanceData(
        bboxes=torch.from_numpy(boxes).float(),
        labels=torch.from_numpy(_labels(model, len(boxes))),
        masks=BitmapMasks(masks, *size),
    )
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long())
    things = getattr(getattr(model, 'panoptic_head', None), 'num_things_classes', 1)
    stuff = np.where(masks.any(axis=0), 0, things)  # the first kind of stuff around the objects
    sample.gt_sem_seg = PixelData(sem_seg=torch.from_numpy(stuff.astype(np.int64))[None])
    return sample
