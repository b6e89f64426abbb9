"""Checks of mmseg's heads for one class: a single output that a sigmoid makes a probability."""

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from vit_backbones.checks.findings import Finding, error, warning
from vit_backbones.checks.wiring import parts_of
from vit_backbones.config.facts import Facts, listed

OTHER_HEADS = ('STDCHead',)  # it learns edges
MMSEG_HEADS = ('decode_head', 'auxiliary_head')
_SINGLE = (
    "is for 1 class, the only one it can find: name the background too, as in classes=('background'"
    ", 'object'), and set num_classes=2"
)
_BINARY = (
    ", out_channels=1, threshold=0.5 and loss_decode=dict(type='CrossEntropyLoss', "
    'use_sigmoid=True)'
)
_FIX = (
    "take dict(type='CrossEntropyLoss', use_sigmoid=True) or dict(type='LovaszLoss', "
    "loss_type='binary', reduction='none'), or leave out_channels=1 out"
)
_ONLY_ON_GPU = ('FocalLoss',)  # it takes one output there, and fails on a CPU


def one_output_findings(facts: Facts, model: nn.Module) -> Iterator[Finding]:
    """Whether heads with one output learn from their losses, and can be thresholded."""
    for name in MMSEG_HEADS:
        configs = listed(facts.chain[0].get(name))
        for number, head in enumerate(parts_of(model, name)):
            place = f'model.{name}' + f'.{number}' * (len(configs) > 1)
            classes, is_plain = getattr(head, 'num_classes', None), hasattr(head, 'loss_decode')
            if classes == 1 and type(head).__name__ not in OTHER_HEADS:
                yield error(f'{place} {_SINGLE}{_BINARY * is_plain}')
            elif not is_plain or getattr(head, 'out_channels', None) != 1:
                continue
            elif classes > 2:
                yield error(
                    f'{place}.out_channels=1 is for two classes, and num_classes is {classes}: '
                    f'leave it out'
                )
            else:
                yield from _loss_findings(head, place) if 'train' in facts.datasets else ()
                if name == 'decode_head':
                    yield from _threshold_findings(head, configs[number : number + 1], place)


def _loss_findings(head: nn.Module, place: str) -> Iterator[Finding]:
    losses = head.loss_decode if isinstance(head.loss_decode, nn.ModuleList) else [head.loss_decode]
    for loss in losses if _learns_as_mmseg(head) else ():
        try:
            right, wrong = _values(loss, head.ignore_index)
        except Exception:  # the trial of a training step has the reason
            if type(loss).__name__ in _ONLY_ON_GPU:
                continue
            fault = 'takes no such output'
        else:
            if right < wrong:
                continue
            fault = 'falls as objects are missed' if right > wrong else 'is equal for any output'
        yield error(f'{place}.out_channels=1, and its {type(loss).__name__} {fault}: {_FIX}')


def _learns_as_mmseg(head: nn.Module) -> bool:
    """Whether `conv_seg` gives the output of a head, and its losses see nothing else."""
    base = next((each for each in type(head).__mro__ if each.__name__ == 'BaseDecodeHead'), None)
    is_plain = base is not None and type(head).loss_by_feat is base.loss_by_feat
    return is_plain and getattr(getattr(head, 'conv_seg', None), 'out_channels', None) == 1


def _values(loss: nn.Module, ignore_index: int | None) -> tuple[float, float]:
    """A loss for an output that finds an object, and for one that finds all but the object.

    On the CPU, where a wrong label raises; on a GPU it ends the process.
    """
    labels = torch.zeros(2, 8, 8, dtype=torch.long)
    labels[:, 2:6, :4] = 1
    logits = (8.0 * labels - 4)[:, None]  # (B, 1, H, W)
    on_cpu = copy.deepcopy(loss).cpu()
    with torch.no_grad(), warnings.catch_warnings(action='ignore'):
        found = [
            on_cpu(each, labels, weight=None, ignore_index=ignore_index).mean()
            for each in (logits, -logits)
        ]
    return found[0].item(), found[1].item()


def _threshold_findings(head: nn.Module, config: list[Any], place: str) -> Iterator[Finding]:
    threshold = head.threshold
    if not isinstance(threshold, (int, float)) or not 0 < threshold < 1:
        yield error(
            f'{place}.threshold={threshold!r} is compared with a probability: set it between 0 '
            f'and 1, such as 0.5'
        )
    elif config and config[0].get('threshold') is None:
        yield warning(
            f'{place}.out_channels=1 without a threshold: mmseg takes {threshold}; set '
            f'threshold=0.5 for the likelier class'
        )
