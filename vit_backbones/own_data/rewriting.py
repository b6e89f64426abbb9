"""Put other data into a config: datasets, evaluators and numbers of classes."""

import copy
import math
from typing import Any

from mmengine.config import Config

from vit_backbones.config.facts import Facts, nodes, type_name
from vit_backbones.own_data.common import OwnData

_SPLITS = ('train', 'val')
_METRICS = {'mmdet': 'CocoMetric', 'mmseg': 'IoUMetric'}  # these take any data
_KEPT = ('pipeline', 'test_mode', 'filter_cfg', 'indices')  # of the recipe, not of the data
# Parts of a model that know no classes, or have some of their own
_CLASSLESS = ('data_preprocessor', 'backbone', 'neck', 'rpn_head', 'train_cfg', 'test_cfg')
FIRST_PART = 4  # of `auxiliary_iters`, in which the head does not learn: a quarter at most
# Variables about the data in config files of mmdet, mmseg and ours, untrue from now on
_UNTRUE = ('data_root', 'dataset_type', 'metainfo', 'num_classes', 'builtin_data')
_INSTANCE = 'configs/mask2former/mask2former_vit-b-dinov2_coco-instance.py'


def check_takes_own_data(facts: Facts) -> str:
    """The toolbox of a config whose data can be replaced, `'mmdet'` or `'mmseg'`, else an error."""
    toolbox = facts.scope
    if toolbox not in _METRICS:
        raise ValueError(
            f"own data are for configs of mmdet and mmseg, this one's default_scope is {toolbox!r}"
        )
    loaders = [facts.config.get(f'{split}_dataloader') for split in _SPLITS]
    if toolbox == 'mmdet' and any(
        node.get('with_seg') or 'Panoptic' in str(node.get('type')) for _, node, _ in nodes(loaders)
    ):
        raise ValueError(
            f'the config learns panoptic or semantic masks beside objects, and own data have none: '
            f'take one for instances, such as {_INSTANCE}'
        )
    for split in _SPLITS:
        found = len(facts.datasets[split])
        if found != 1:
            raise ValueError(
                f'own data replace one data set, and {split}_dataloader has {found or "none"}: '
                f'take another config'
            )
    for each in facts.evaluators['val']:
        if type_name(each) != _METRICS[toolbox]:
            raise ValueError(
                f'val_evaluator is a {each.get("type")}, which own data do not suit: set '
                f'val_evaluator.type={_METRICS[toolbox]} in the config'
            )
    return toolbox


def put_data(facts: Facts, own: OwnData) -> None:
    """Replace the data in a config that `check_takes_own_data` accepted.

    The pipelines stay, except for `reduce_zero_label`, which takes 1 off each label: that is for
    data whose 0 is no class. The data to validate on become those to test on too.
    """
    cfg = facts.config
    for split in _SPLITS:
        ((_, dataset),) = facts.datasets[split]
        kept = {key: dataset[key] for key in _KEPT if key in dataset}
        metainfo = dict(classes=own.classes, palette=own.palette)
        dataset.clear()
        dataset.update(**own.datasets[split], metainfo=metainfo, **kept)
        for _, node, _ in nodes(cfg[f'{split}_dataloader']):
            node.pop('reduce_zero_label', None)
    if cfg.default_scope == 'mmseg' and not own.same_size:
        cfg.val_dataloader.batch_size = 1  # mmseg tests images of one size together
    for each in facts.evaluators['val']:
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
    """Shorten `auxiliary_iters`, which leave the head out, to a quarter of the training at most."""
    if 'auxiliary_iters' in cfg.model:
        iters = math.ceil(num_images / cfg.train_dataloader.batch_size)  # of an epoch
        total = cfg.train_cfg.get('max_iters') or iters * cfg.train_cfg.max_epochs
        cfg.model.auxiliary_iters = min(cfg.model.auxiliary_iters, total // FIRST_PART)


def put_classes(model: dict[str, Any], number: int) -> None:
    """Set the number of classes of every head, without the background that losses add."""
    for name, part in model.items():
        if name not in _CLASSLESS:
            _put_classes(part, number, 0)


def _put_classes(node: Any, number: int, before: int) -> None:
    """The same below a head that was for `before` classes."""
    if isinstance(node, (list, tuple)):
        for each in node:
            _put_classes(each, number, before)
    if not isinstance(node, dict):
        return
    things = node.get('num_things_classes', 0)
    before = node.get('num_classes') or things + node.get('num_stuff_classes', 0) or before
    if 'num_classes' in node:
        # One channel is enough for two classes; a head's own default is one per class
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
