"""Warn of a training that waits for its data."""

import math
import time
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from vit_backbones.training.machine import free_cores

_SHARE = 0.05  # of the time, which may be spent so
_FIRST = 10  # iterations in which workers and kernels warm up


@HOOKS.register_module()
class DataWaitHook(Hook):
    """Warn once if a training waits for data more than 5 % of its time, and say what helps.

    On a GPU only the time counts in which the GPU has nothing left to do.

    Args:
        num_iters: Iterations that are looked at, at the start of the training.

    Raises:
        ValueError: If `num_iters` is below 1.
    """

    priority = 'LOWEST'  # other hooks are no data

    def __init__(self, *, num_iters: int = 100) -> None:
        if num_iters < 1:
            raise ValueError(f'num_iters must be at least 1, got {num_iters}')
        self.num_iters = num_iters
        self._seen, self._waited, self._total = 0, 0.0, 0.0

    def before_train(self, runner: Runner) -> None:
        """Start the clock."""
        self._end = time.monotonic()

    def after_val(self, runner: Runner) -> None:
        """A validation between two iterations is no wait."""
        self._end = time.monotonic()

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Count the time since the last iteration."""
        if _FIRST <= self._seen < _FIRST + self.num_iters and _is_idle():
            self._waited += time.monotonic() - self._end

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Count the iteration, and warn after the last one."""
        begin, self._end = self._end, time.monotonic()
        self._total += (self._end - begin) * (self._seen >= _FIRST)
        self._seen += 1
        if self._seen == _FIRST + self.num_iters and self._waited > _SHARE * self._total:
            runner.logger.warning(self._line(runner))

    def _line(self, runner: Runner) -> str:
        number = runner.train_loop.dataloader.num_workers
        cores = free_cores(runner.cfg.get('launcher', 'none'))
        share = self._waited / self._total
        waits = f'the training waits for data {share:.0%} of its time'
        # Without workers data are loaded only while it waits
        loading = number / (1 - share) if number else share / (1 - share)
        wanted = min(max(number + 1, math.ceil(loading)), cores)
        if wanted > number:
            return f'{waits}: set train_dataloader.num_workers={wanted}, which is {number} now'
        return (
            f'{waits}, and its {number} workers have only {cores} cores: store images in the size '
            f'that it takes, leave out the slowest transforms, or use a machine with more cores'
        )


def _is_idle() -> bool:
    """Whether the GPU has done all that it was given; a CPU has."""
    return not torch.cuda.is_available() or torch.cuda.current_stream().query()
