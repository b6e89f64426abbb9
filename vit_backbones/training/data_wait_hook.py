"""Warn of a training that waits for its data."""

import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from vit_backbones.errors import counted
from vit_backbones.training.machine import free_cores

_SHARE = 0.05  # of the time, which may be spent so
_FIRST = 10  # iterations in which workers and kernels warm up


@HOOKS.register_module()
class DataWaitHook(Hook):
    """Warn once if a training waits for data more than 5 % of its time, and say what helps.

    On a GPU only the time counts in which the GPU has nothing left to do, by its own clock.

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
        self._seen = 0
        self._spans: list[tuple[Any, Any, Any]] = []  # last one done, data there, this one done

    def before_train(self, runner: Runner) -> None:
        """Start the clock."""
        self._end = self._mark()

    def after_val(self, runner: Runner) -> None:
        """A validation between two iterations is no wait."""
        self._end = self._mark()

    def before_train_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        """Note when the data are there."""
        self._loaded = self._mark()
        if batch_idx == 0:  # of an epoch, whose first batch no number of workers has ready
            self._end = self._loaded

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Count the iteration, and warn after the last one."""
        if self._is_over:
            return
        begin, self._end = self._end, self._mark()
        self._seen += 1
        if self._seen > _FIRST:
            self._spans.append((begin, self._loaded, self._end))
        if self._is_over:
            share = _share_waited(self._spans)
            self._spans.clear()
            if share > _SHARE:
                runner.logger.warning(_line(runner, share))

    @property
    def _is_over(self) -> bool:
        return self._seen >= _FIRST + self.num_iters

    def _mark(self) -> Any:
        """This moment on the CPU, or in the work of the GPU, which is not waited for."""
        if self._is_over or not torch.cuda.is_available():
            return time.monotonic()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _share_waited(spans: Sequence[tuple[Any, Any, Any]]) -> float:
    if isinstance(last := spans[-1][-1], float):
        seconds = [(loaded - begin, end - begin) for begin, loaded, end in spans]
    else:
        last.synchronize()  # once in a training
        seconds = [(each[0].elapsed_time(each[1]), each[0].elapsed_time(each[2])) for each in spans]
    waited, total = map(sum, zip(*seconds, strict=True))
    return waited / total if total else 0.0


def _line(runner: Runner, share: float) -> str:
    number = runner.train_loop.dataloader.num_workers
    cores = free_cores(runner.cfg.get('launcher', 'none'))
    waits = f'the training waits for data {share:.0%} of its time'
    # Without workers data are loaded only while it waits
    loading = number / (1 - share) if number else share / (1 - share)
    wanted = min(max(number + 1, math.ceil(loading)), cores)
    if wanted > number:
        return f'{waits}: set train_dataloader.num_workers={wanted}, which is {number} now'
    return (
        f'{waits}, and has {counted(number, "worker")} on {counted(cores, "core")}: store images '
        f'in the size that it takes, leave out the slowest transforms, or use a machine with more '
        f'cores'
    )
