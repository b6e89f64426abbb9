"""A line where the loss jumps, or a metric falls to nothing."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from vit_backbones.arguments import integer, positive
from vit_backbones.metrics import headline, metric_text
from vit_backbones.training.curves_hook import validations
from vit_backbones.training.non_finite import NonFiniteError

_SPANS = 20  # with which the newest one is compared


@HOOKS.register_module()
class LossWatchHook(Hook):
    """Warn where the loss jumps to a multiple, or the main metric falls to 0.

    The mean loss of each `interval` iterations is compared with the median of up to 20 spans before
    it, while the model has the same losses. `tools/train.py` adds this hook.

    Args:
        interval: Iterations of a span, at least 1.
        factor: A mean of more than this multiple is a jump, above 1.

    Raises:
        ValueError: For a value out of range.
        NonFiniteError: While training, if all losses of a span are not finite.
    """

    priority = 'LOW'

    def __init__(self, *, interval: int = 50, factor: float = 5.0) -> None:
        self.interval, self.factor = integer('interval', interval, 1), positive('factor', factor)
        if factor <= 1:
            raise ValueError(f'factor must be above 1, got {factor!r}')
        self._means: list[float] = []
        self._losses: set[str] = set()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Compare at the end of each span."""
        if losses := {name for name in outputs or {} if 'loss' in name} - self._losses:
            self._losses |= losses  # another part of the model begins to learn
            self._means = []
        if not self.every_n_train_iters(runner, self.interval):
            return
        values = runner.message_hub.get_scalar('train/loss').data[0][-self.interval :]
        self._compare(runner, values[np.isfinite(values)], len(values))

    def _compare(self, runner: Runner, finite: Sequence[float], number: int) -> None:
        last = runner.iter + 1
        span = f'iterations {last - number + 1} to {last}'
        if not len(finite):
            raise NonFiniteError(f'no loss of {span} is finite: lower the learning rate')
        if len(finite) < number:
            lost = number - len(finite)
            runner.logger.warning(f'{lost} of the {number} losses of {span} are not finite')
        mean, before = float(np.mean(finite)), self._means
        self._means = [*before, mean][-_SPANS:]
        if before and mean > self.factor * (usual := float(np.median(before))) > 0:
            runner.logger.warning(
                f'the loss jumped: {mean:.4g} on average in {span}, and {usual:.4g} before; if it '
                f'stays there, lower the learning rate or clip gradients'
            )

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Compare the main metric with the best so far."""
        name = headline(metrics) if metrics else None
        value = (metrics or {}).get(name)
        if not isinstance(value, (int, float, np.number)) or (math.isfinite(value) and value != 0):
            return
        known = [e for e in validations(runner) if e['metrics'].get(name, 0) > 0]
        if known:
            best = max(known, key=lambda entry: entry['metrics'][name])
            runner.logger.warning(
                f'{name} fell to {value:g}, and was {metric_text(name, best["metrics"][name])} '
                f'after iteration {best["iter"]}: look at the losses since then'
            )
