"""Run a trained model on images, as its config tests it."""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.structures import BaseDataElement
from torch import nn

from vit_backbones.checks.wiring import vit_of
from vit_backbones.config.datasets import pipeline_of
from vit_backbones.config.explain import describe
from vit_backbones.config.facts import type_name
from vit_backbones.images import ImageWalk, Item
from vit_backbones.models.trained import Trained

_FLIPS = [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]
# What OpenCV and Pillow write of a size of 0
_EMPTY = ('inv_scale_x > 0', 'inv_scale_y > 0', 'dsize.empty', 'height and width must be > 0')
_META = ('ori_shape', 'flip', 'flip_direction')
# As in mmdet's configs for flips
_BOXES = ConfigDict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)


class Prediction(NamedTuple):
    """An image with the data sample that mmdet or mmseg predicts, at the image's own size."""

    item: Item
    sample: BaseDataElement


def predict(
    trained: Trained, walk: ImageWalk, *, batch_size: int = 1, flip: bool = False
) -> Iterator[Prediction]:
    """Run a model on images; gives predictions in their order.

    Args:
        walk: The images; an image that the config's pipeline cannot load counts as unreadable.
        batch_size: Images at a time, consecutive and of equal size, so that none is padded because
            of another.
        flip: Average with the mirrored images, by mmseg's `SegTTAModel` or mmdet's `DetTTAModel`.

    Raises:
        ValueError: If the config has no pipeline for tests, or the model cannot use `flip`.
    """
    pipeline = Compose(pipeline_for_images(trained.config, flip=flip))
    model = _with_flips(trained) if flip else trained.model
    vit = vit_of(trained.model)
    prepared = _prepared(pipeline, walk, vit and vit.in_channels)
    groups = itertools.groupby(prepared, key=lambda pair: _shapes(pair[1]))
    for _, group in groups:
        while batch := list(itertools.islice(group, batch_size)):
            with torch.no_grad():
                samples = model.test_step(pseudo_collate([data for _, data in batch]))
            for (item, _), sample in zip(batch, samples, strict=True):
                yield Prediction(item, sample)


def pipeline_for_images(config: Config, *, flip: bool = False) -> list[dict[str, Any]]:
    """The transforms that a config tests with, except those that load annotations.

    With `flip` they give each image twice, the second time mirrored.
    """
    pipeline = pipeline_of(config, ('test', 'val'))
    steps = [dict(step) for step in pipeline if 'Annotations' not in str(step['type'])]
    if not flip:
        return steps
    names = [type_name(step) for step in steps]
    first = next(i for i, name in enumerate(names) if name.startswith(('Pad', 'Pack')))
    ends = [
        step | (dict(meta_keys=(*step['meta_keys'], *_META)) if 'meta_keys' in step else {})
        for step in steps[first:]
    ]
    flips = [dict(each) for each in _FLIPS]  # mmcv replaces them in place
    variants = [flips, [_copied], *([end] for end in ends)]
    steps[first:] = [dict(type='TestTimeAug', transforms=variants)]
    return steps


def _copied(results: dict[str, Any]) -> dict[str, Any]:
    """Copy the image: PyTorch refuses a mirrored one of a single column, as NumPy keeps it."""
    return results | dict(img=np.array(results['img'], order='C'))


def _with_flips(trained: Trained) -> nn.Module:
    """The model that merges its predictions of an image and of the mirrored image."""
    if trained.segments:
        from mmseg.models import SegTTAModel

        return SegTTAModel(module=trained.model)
    masks = getattr(trained.model, 'with_mask', False) or hasattr(trained.model, 'panoptic_head')
    if masks or not hasattr(trained.model, 'with_bbox'):
        raise ValueError(
            f'flip=True: mmdet merges only boxes, and {type(trained.model).__name__} gives masks; '
            f'leave it out'
        )
    from mmdet.models.test_time_augs import DetTTAModel

    return DetTTAModel(module=trained.model, tta_cfg=_BOXES)


def _prepared(
    pipeline: Compose, walk: ImageWalk, channels: int | None
) -> Iterator[tuple[Item, dict[str, Any]]]:
    """Pair each image with the output of the pipeline, if the model takes so many channels."""
    for number, item in enumerate(walk):
        try:
            data = pipeline(dict(img_path=str(item.path), img_id=number))
        except Exception as error:  # each transform has its own
            walk.unreadable[item.path] = f'{item.path}: {_reason(error, item)}'
            continue
        given = _shapes(data)[0][0]
        if channels not in (None, given):
            why = f'it has {given} channels, and the model takes {channels}'
            walk.unreadable[item.path] = f'{item.path}: {why}'
            continue
        yield item, data


def _reason(error: Exception, item: Item) -> str:
    """Why the pipeline cannot take an image, in plain words where a side would vanish."""
    text = describe(error)
    if not any(each in text for each in _EMPTY):
        return text
    height, width = item.pixels.shape[:2]
    return f"it has {height}x{width} pixels, of which the config's Resize leaves no row or column"


def _shapes(data: dict[str, Any]) -> list[tuple[int, ...]]:
    inputs = data['inputs']
    return [tuple(each.shape) for each in (inputs if isinstance(inputs, list) else [inputs])]
