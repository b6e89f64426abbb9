"""The parts of Mask2Former's loss with its numbers, of which a config gives only what differs."""

from collections.abc import Mapping
from numbers import Real
from typing import Any

from mmdet.models.losses import CrossEntropyLoss, DiceLoss
from mmdet.models.task_modules import (
    ClassificationCost,
    CrossEntropyLossCost,
    DiceCost,
    HungarianAssigner,
    MaskPseudoSampler,
)
from mmdet.registry import MODELS, TASK_UTILS
from torch import nn

from vit_backbones.arguments import integer

Changes = Mapping[str, Any] | None

# By class, so that a config of any scope may leave them out
_LOSSES: dict[str, dict[str, Any]] = {
    'cls': dict(type=CrossEntropyLoss, use_sigmoid=False, loss_weight=2.0, reduction='mean'),
    'mask': dict(type=CrossEntropyLoss, use_sigmoid=True, loss_weight=5.0, reduction='mean'),
    'dice': dict(
        type=DiceLoss, use_sigmoid=True, activate=True, naive_dice=True, eps=1.0, loss_weight=5.0
    ),
}
_TRAIN_CFG: dict[str, Any] = dict(
    num_points=12544,
    oversample_ratio=3.0,
    importance_sample_ratio=0.75,
    assigner=dict(
        type=HungarianAssigner,
        match_costs=[
            dict(type=ClassificationCost, weight=2.0),
            dict(type=CrossEntropyLossCost, weight=5.0, use_sigmoid=True),
            dict(type=DiceCost, weight=5.0, pred_act=True, eps=1.0),
        ],
    ),
    sampler=dict(type=MaskPseudoSampler),
)
_NO_OBJECT = 0.1  # weight of the class "no object"


def set_losses(head: nn.Module, **given: Changes) -> None:
    """Build `loss_cls`, `loss_mask` and `loss_dice` of a head; with a `type` as given, no default.

    Args:
        head: Has `num_classes`.
        **given: Changes of the losses `cls`, `mask` and `dice`.
    """
    weights = [1.0] * head.num_classes + [_NO_OBJECT]
    given['cls'] = dict(class_weight=weights) | (given['cls'] or {})
    head.class_weight = given['cls']['class_weight']
    for name, default in _LOSSES.items():
        changes = given[name] or {}
        config = changes if 'type' in changes else default | changes
        setattr(head, f'loss_{name}', MODELS.build(config))


def set_matching(head: nn.Module, train_cfg: Changes) -> None:
    """Build the assigner and the sampler of a head, and note the numbers of its points."""
    if unknown := [key for key in train_cfg or () if key not in _TRAIN_CFG]:
        raise ValueError(f'train_cfg takes {", ".join(_TRAIN_CFG)}, got {", ".join(unknown)}')
    head.train_cfg = config = _TRAIN_CFG | (train_cfg or {})
    head.assigner = TASK_UTILS.build(config['assigner'])
    head.sampler = TASK_UTILS.build(config['sampler'], default_args=dict(context=head))
    head.num_points = integer('num_points', config['num_points'], 1)
    for name, low, high in (('oversample_ratio', 1, 1e6), ('importance_sample_ratio', 0, 1)):
        if not isinstance(ratio := config[name], Real) or not low <= ratio <= high:
            raise ValueError(f'{name} must be in [{low}, {high:g}], got {ratio!r}')
        setattr(head, name, ratio)
