"""Whether a head's parts are those whose losses are known, so that they can be computed at once."""

from collections.abc import Iterator
from typing import Any

from mmdet.models.dense_heads import Mask2FormerHead
from mmdet.models.losses import CrossEntropyLoss, DiceLoss
from mmdet.models.task_modules.assigners import HungarianAssigner
from mmdet.models.task_modules.samplers import MaskPseudoSampler

from vit_backbones.heads.matching import COSTS

_METHODS = ('get_targets', '_get_targets_single', '_loss_by_feat_single')
_PARTS = {
    'assigner': HungarianAssigner,
    'sampler': MaskPseudoSampler,
    'loss_cls': CrossEntropyLoss,
    'loss_mask': CrossEntropyLoss,
    'loss_dice': DiceLoss,
}
_OPTIONS = {
    'loss_cls': dict(use_sigmoid=False, use_mask=False, reduction='mean'),
    'loss_mask': dict(use_sigmoid=True, reduction='mean', class_weight=None, ignore_index=None),
    'loss_dice': dict(use_sigmoid=True, reduction='mean'),
    'CrossEntropyLossCost': dict(use_sigmoid=True),
}


def why_unbatched(head: Mask2FormerHead) -> str:
    """What of a head does not allow to compute its loss at once; empty if nothing.

    It depends on the config only, so that all processes of a training do the same.
    """
    return next(_hindrances(head), '')


def _hindrances(head: Mask2FormerHead) -> Iterator[str]:
    for name in _METHODS:
        if getattr(type(head), name) is not getattr(Mask2FormerHead, name):
            yield f'its class has its own {name}'
    for name, kind in _PARTS.items():
        if type(getattr(head, name)) is not kind:
            yield f'{name} is {type(getattr(head, name)).__name__}, not {kind.__name__}'
        yield from _options(name, getattr(head, name))
    for cost in getattr(head.assigner, 'match_costs', ()):
        if type(cost) not in COSTS:
            known = ', '.join(each.__name__ for each in COSTS)
            yield f'match_costs has {type(cost).__name__}; known are {known}'
        yield from _options(type(cost).__name__, cost)


def _options(name: str, part: Any) -> Iterator[str]:
    for option, wanted in _OPTIONS.get(name, {}).items():
        given = getattr(part, option, wanted)
        if given != wanted:
            yield f'{name} has {option}={given!r}, not {wanted!r}'
