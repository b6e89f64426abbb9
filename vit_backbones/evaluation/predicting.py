"""Run a trained model on images, as its config tests it."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from mmcv.transforms import Compose
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.structures import BaseDataElement
from torch import nn

from vit_backbones.config.explain import describe
from vit_backbones.config.facts import dataset_configs
from vit_backbones.images import ImageWalk, Item
from vit_backbones.models.trained import Trained

_FLIPS = [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]
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
    groups = itertools.groupby(_prepared(pipeline, walk), key=lambda pair: _shapes(pair[1]))
    for _, group in groups:
        while batch := list(itertools.islice(group, batch_size)):
            with torch.no_grad():
                samples = model.test_step(pseudo_collate([data for _, data in batch]))
            for (item, _), sample in zip(batch, samples, strict=True):
                yield Prediction(item, sample)


def pipeline_of(config: Config, splits: Sequence[str]) -> list[dict[str, Any]]:
    """Find the transforms of a config's first dataset among these splits, or raise a ValueError."""
    loaders = (config.get(f'{split}_dataloader') or {} for split in splits)
    datasets = (each for loader in loaders for _, each in dataset_configs(loader, ''))
    pipeline = next((each['pipeline'] for each in datasets if each.get('pipeline')), None)
    if pipeline is None:
        raise ValueError(
            'the config has neither test_dataloader nor val_dataloader, and so no pipeline for '
            'images'
        )
    return pipeline


def pipeline_for_images(config: Config, *, flip: bool = False) -> list[dict[str, Any]]:
    """The transforms that a config tests with, except those that load annotations.

    With `flip` they give each image twice, the second time mirrored.
    """
    pipeline = pipeline_of(config, ('test', 'val'))
    steps = [dict(step) for step in pipeline if 'Annotations' not in str(step['type'])]
    if not flip:
        return steps
    names = [str(step['type']).split('.')[-1] for step in steps]
    first = next(i for i, name in enumerate(names) if name.startswith(('Pad', 'Pack')))
    ends = [
        step | (dict(meta_keys=(*step['meta_keys'], *_META)) if 'meta_keys' in step else {})
        for step in steps[first:]
    ]
    steps[first:] = [dict(type='TestTimeAug', transforms=[_FLIPS, *([end] for end in ends)])]
    return steps


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


def _prepared(pipeline: Compose, walk: ImageWalk) -> Iterator[tuple[Item, dict[str, Any]]]:
    """Pair each image with the output of the pipeline."""
    for number, item in enumerate(walk):
        try:
            data = pipeline(dict(img_path=str(item.path), img_id=number))
        except Exception as error:  # each transform has its own
            walk.unreadable[item.path] = f'{item.path}: {describe(error)}'
            continue
        yield item, data


def _shapes(data: dict[str, Any]) -> list[tuple[int, ...]]:
    inputs = data['inputs']
    return [tuple(each.shape) for each in (inputs if isinstance(inputs, list) else [inputs])]
