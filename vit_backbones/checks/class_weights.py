"""Checks of the weights that a loss gives to classes."""

from collections.abc import Iterable, Iterator

from torch import nn

from vit_backbones.checks.findings import Finding, error


def class_weight_findings(heads: Iterable[tuple[str, nn.Module]]) -> Iterator[Finding]:
    """Whether each loss of the named heads has one weight for each output of its head."""
    for name, head in heads:
        for place, loss, outputs in _losses(head):
            weights = getattr(loss, 'class_weight', None)
            where = f'model.{name}.{place}.class_weight'
            if not isinstance(weights, list | tuple):
                continue
            if len(weights) != outputs:
                yield error(
                    f'{where} has {len(weights)} values, and the head has {outputs} outputs'
                    f'{_background(outputs, head)}: give one value for each'
                )
            if wrong := [each for each in weights if not each >= 0]:
                yield error(f'{where} holds {wrong[0]}: give numbers from 0')


def _losses(head: nn.Module) -> Iterator[tuple[str, nn.Module, int]]:
    """Losses of classes with their place and the number of the head's outputs."""
    segments = getattr(head, 'loss_decode', None)
    if segments is not None and (outputs := getattr(head, 'out_channels', 1)) > 1:
        each_loss = segments if isinstance(segments, nn.ModuleList) else [segments]
        yield from (('loss_decode', loss, outputs) for loss in each_loss)
    if (loss := getattr(head, 'loss_cls', None)) is not None:
        background = not getattr(loss, 'use_sigmoid', False)  # mmdet's rule
        yield 'loss_cls', loss, head.num_classes + background


def _background(outputs: int, head: nn.Module) -> str:
    return ' (its classes, and the background last)' if outputs > head.num_classes else ''
