"""A config with other data: its data sets, its evaluators and its numbers of classes."""

import copy
import math
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from vit_backbones.config.datasets import dataset_configs
from vit_backbones.own_data.parts import OwnData

_SPLITS = ('train', 'val')
_METRICS = {'mmdet': 'CocoMetric', 'mmseg': 'IoUMetric'}  # that take any data
_KEPT = ('pipeline', 'test_mode', 'filter_cfg', 'indices')  # what a recipe does with its images
# Parts of a model that know no classes, or have some of their own
_CLASSLESS = ('data_preprocessor', 'backbone', 'neck', 'rpn_head', 'train_cfg', 'test_cfg')
_FIRST_PART = 4  # of `auxiliary_iters`, in which the head does not learn: a quarter at most
# What config files of mmdet, mmseg and ours say of their data at the top, untrue from now on
_UNTRUE = ('data_root', 'dataset_type', 'metainfo', 'num_classes', 'builtin_data')
_INSTANCE = 'configs/mask2former/mask2former_vit-b-dinov2_coco-instance.py'


def check_takes_own_data(cfg: Config) -> str:
    """Refuse a config whose data cannot be replaced.

    Args:
        cfg: The merged config.

    Returns:
        `'mmdet'` or `'mmseg'`.

    Raises:
        ValueError: If it is of neither, learns panoptic masks, lacks data to train or validate on,
            mixes several, or measures by what its own data alone allow.
    """
    toolbox = cfg.get('default_scope')
    if toolbox not in _METRICS:
        raise ValueError(
            f"own data are for configs of mmdet and mmseg, this one's default_scope is {toolbox!r}"
        )
    if toolbox == 'mmdet' and any(
        node.get('with_seg') or 'Panoptic' in str(node.get('type')) for node in _dicts(_data(cfg))
    ):
        raise ValueError(
            f'the config learns panoptic or semantic masks beside objects, and own data have none: '
            f'take one for instances, such as {_INSTANCE}'
        )
    for split in _SPLITS:
        place = f'{split}_dataloader'
        found = list(dataset_configs(cfg.get(place) or {'datasets': ()}, place))
        if len(found) != 1:
            raise ValueError(
                f'own data replace one data set, and {place} has {len(found) or "none"}: take '
                f'another config'
            )
    for each in _evaluators(cfg):
        if str(each.get('type')).split('.')[-1] != _METRICS[toolbox]:
            raise ValueError(
                f'val_evaluator is a {each.get("type")}, which own data do not suit: set '
                f'val_evaluator.type={_METRICS[toolbox]} in the config'
            )
    return toolbox


def learns_masks(cfg: Config) -> bool:
    """Whether a detector is trained on masks beside boxes."""
    return any(node.get('with_mask') for node in _dicts(_data(cfg)))


def put_data(cfg: Config, own: OwnData) -> None:
    """Replace the data of a config that `check_takes_own_data` accepted.

    The pipelines stay, but for `reduce_zero_label`, which takes 1 off each label: that is for data
    whose 0 is no class. The data to test on become those to validate on.

    Args:
        cfg: Changed in place.
        own: The data.
    """
    for split in _SPLITS:
        loader = cfg[f'{split}_dataloader']
        ((_, dataset),) = dataset_configs(loader, '')
        kept = {key: dataset[key] for key in _KEPT if key in dataset}
        dataset.clear()
        dataset.update(
            **own.datasets[split], metainfo=dict(classes=own.classes, palette=own.palette), **kept
        )
        for node in _dicts(loader):
            node.pop('reduce_zero_label', None)
    if cfg.default_scope == 'mmseg' and not own.same_size:
        cfg.val_dataloader.batch_size = 1  # mmseg tests images of one size together
    for each in _evaluators(cfg):
        if cfg.default_scope == 'mmdet':
            each.update(ann_file=own.datasets['val']['ann_file'], backend_args=None)
            each.pop('classwise', None)  # the best checkpoint would be that of the first class
    cfg.test_dataloader = copy.deepcopy(cfg.val_dataloader)
    cfg.test_evaluator = copy.deepcopy(cfg.val_evaluator)
    cfg.test_cfg = cfg.get('test_cfg') or {}
    put_classes(cfg.model, len(own.classes))
    shorten_first_part(cfg, own.num_images['train'])
    for key in _UNTRUE:
        cfg.pop(key, None)


def shorten_first_part(cfg: Config, num_images: int) -> None:
    """Let heads learn in most of a training, however few images there are.

    Args:
        cfg: Changed in place; of a model with `auxiliary_iters`, else nothing is done.
        num_images: To train on.
    """
    if 'auxiliary_iters' in cfg.model:
        iters = math.ceil(num_images / cfg.train_dataloader.batch_size)  # of an epoch
        total = cfg.train_cfg.get('max_iters') or iters * cfg.train_cfg.max_epochs
        cfg.model.auxiliary_iters = min(cfg.model.auxiliary_iters, total // _FIRST_PART)


def put_classes(model: dict[str, Any], number: int) -> None:
    """Set the number of classes of every head.

    Args:
        model: Config of a detector of objects or a segmenter, changed in place.
        number: Without the background that losses add.
    """
    for name, part in model.items():
        if name not in _CLASSLESS:
            _put_classes(part, number, 0)


def _put_classes(node: Any, number: int, before: int) -> None:
    """Below a head that was for `before` classes."""
    if isinstance(node, (list, tuple)):
        for each in node:
            _put_classes(each, number, before)
    if not isinstance(node, dict):
        return
    things = node.get('num_things_classes', 0)
    before = node.get('num_classes') or things + node.get('num_stuff_classes', 0) or before
    if 'num_classes' in node:
        # One channel tells two classes apart; a head's own default is a channel each
        binary = node.get('out_channels') == 1 and number == 2
        if node.get('out_channels') in (1, node['num_classes']) and not binary:
            node['out_channels'] = number
        node['num_classes'] = number
    if 'num_things_classes' in node:
        node.update(num_things_classes=number, num_stuff_classes=0)
    weights = node.get('class_weight')
    if isinstance(weights, (list, tuple)):  # those of other classes say nothing of these
        node['class_weight'] = [1.0] * number + list(weights[before:])
    elif isinstance(weights, str):  # mmseg's file of them
        del node['class_weight']
    for each in node.values():
        _put_classes(each, number, before)


def _data(cfg: Config) -> list[Any]:
    return [cfg.get(f'{split}_dataloader') for split in _SPLITS]


def _evaluators(cfg: Config) -> list[dict[str, Any]]:
    given = cfg.get('val_evaluator') or []
    return given if isinstance(given, list) else [given]


def _dicts(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for each in node.values() if isinstance(node, dict) else node:
        if isinstance(each, (dict, list, tuple)):
            yield from _dicts(each)
