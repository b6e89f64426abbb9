"""The reason why a validation fails, from the exception and what the model gave."""

import re
import traceback
from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.structures import BaseDataElement

from vit_backbones.config.datasets import leaf_datasets
from vit_backbones.config.explain import describe

_PIPELINE = 'val_dataloader.dataset.pipeline'
_META = (
    'ori_shape', 'img_shape', 'pad_shape', 'scale_factor', 'img_id', 'img_path', 'seg_map_path',
    'flip', 'flip_direction', 'reduce_zero_label', 'instances', 'segments_info',
)  # fmt: skip


def reason_of(raised: Exception, outputs: Sequence[Any], dataset: Any) -> str:
    """One line for an exception in a validation of `dataset`; `outputs` are those of the model."""
    transforms = _transforms(dataset)
    metric = _metric_of(raised)
    samples = [each for each in outputs if isinstance(each, BaseDataElement)]
    found = (
        _label_sizes(samples, transforms),
        _meta_keys(raised, transforms),
        _other_predictions(raised, samples, metric),
        _other_file(raised, metric),
        _option(raised),
    )
    return next(filter(None, found), None) or describe(raised)


def _transforms(dataset: Any) -> list[Any]:
    leaf = next(iter(leaf_datasets(dataset)))
    return list(getattr(getattr(leaf, 'pipeline', None), 'transforms', ()))


def _metric_of(raised: Exception) -> BaseMetric | None:
    """The metric in which it was raised."""
    frames = [frame.f_locals.get('self') for frame, _ in traceback.walk_tb(raised.__traceback__)]
    return next((each for each in frames if isinstance(each, BaseMetric)), None)


def _label_sizes(samples: Sequence[BaseDataElement], transforms: Sequence[Any]) -> str | None:
    """Label maps of another size than predictions, which have that of the file."""
    for sample in samples:
        maps = [sample.get(f'{kind}_sem_seg') for kind in ('gt', 'pred')]
        sizes = [
            tuple(each.data.shape[-2:]) for each in maps if each is not None and 'data' in each
        ]
        if len(sizes) < 2 or sizes[0] == sizes[1]:
            continue
        labels, predicted = (f'{height}x{width}' for height, width in sizes)
        return (
            f'{sample.get("img_path")} has labels of {labels}, but predictions of {predicted}, '
            f'the size of its file: {_resizing_fix(transforms)}'
        )
    return None


def _resizing_fix(transforms: Sequence[Any]) -> str:
    names = [type(each).__name__ for each in transforms]
    start = next((i for i, name in enumerate(names) if 'Annotations' in name), len(names))
    later = [name for name in names[start + 1 :] if not name.startswith('Pack')]
    if not later:
        return 'image and labels must have one size'
    return f'move {names[start]} behind {" and ".join(later)} in {_PIPELINE}'


def _meta_keys(raised: Exception, transforms: Sequence[Any]) -> str | None:
    """A key that the last transform does not pack, or that no transform sets."""
    pack = next((each for each in reversed(transforms) if hasattr(each, 'meta_keys')), None)
    if pack is None or not isinstance(raised, (KeyError, AttributeError, AssertionError)):
        return None
    text = describe(raised)
    named = [key for key in _META if re.search(rf'\b{key}\b', text)]
    missing = [key for key in named if key not in pack.meta_keys]
    if not missing and 'scale_factor' in named:
        return (
            f"no transform in {_PIPELINE} sets 'scale_factor', which the validation needs: add "
            f'Resize behind the first'
        )
    return (
        f'{type(pack).__name__} in {_PIPELINE} does not pack {missing[0]!r}, which the validation '
        f'needs: add it to its meta_keys'
        if missing
        else None
    )


def _other_predictions(
    raised: Exception, samples: Sequence[BaseDataElement], metric: BaseMetric | None
) -> str | None:
    """A metric that reads what the model does not give."""
    key = str(raised.args[0]) if isinstance(raised, KeyError) and raised.args else ''
    if metric is None or not samples:
        return None
    given = [name for name in samples[0].keys() if name.startswith('pred_')]
    if key.startswith('pred_') and key not in given:
        return (
            f'val_evaluator: {type(metric).__name__} reads {key}, but the model gives '
            f'{" and ".join(given)}: take a metric for these'
        )
    if key.startswith('gt_'):
        return f'{_PIPELINE} loads no {key}: add LoadAnnotations, in tests behind Resize'
    if key.endswith('is not in results'):
        wanted = key.split()[0]
        return (
            f'val_evaluator: {type(metric).__name__} has metric={wanted!r}, but the model gives '
            f'no masks: leave it out'
        )
    return None


def _other_file(raised: Exception, metric: BaseMetric | None) -> str | None:
    """An `ann_file` of the evaluator that is not that of the dataset."""
    if 'ground truth is required' in str(raised):
        return (
            f'val_evaluator: {type(metric).__name__} has no ann_file: give it the file of '
            f'val_dataloader.dataset'
        )
    if metric is None or getattr(metric, '_coco_api', None) is None:
        return None
    classes = (metric.dataset_meta or {}).get('classes') or ()
    known = getattr(metric, 'cat_ids', None)
    if isinstance(raised, IndexError) and known is not None and len(known) < len(classes):
        return (
            f'val_evaluator.ann_file lists {len(known)} of the {len(classes)} classes of '
            f'val_dataloader.dataset as categories: give both the same file, and spell the classes '
            f'as it does'
        )
    if 'do not correspond to current coco set' in str(raised):
        return (
            'val_evaluator.ann_file lacks images of val_dataloader.dataset: give both the same file'
        )
    return None


def _option(raised: Exception) -> str | None:
    """A key that a dict of the config lacks, or a batch size that images of several sizes bar."""
    if 'image size in a batch should be the same' in str(raised):
        return 'val_dataloader.batch_size is above 1, and its images differ in size: set it to 1'
    found = re.match(r"'ConfigDict' object has no attribute '(\w+)'", str(raised))
    return f'model.test_cfg, or a dict in it, lacks {found[1]!r}: set it' if found else None
