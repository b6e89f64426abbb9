"""One line on what a training is, and the progress of each validation from its first batch."""

import math
import time
from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import Hook, LoggerHook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner

from vit_backbones.checks.wiring import bare, vit_of
from vit_backbones.errors import counted
from vit_backbones.training.record_hook import device_name, num_parameters


@HOOKS.register_module()
class ProgressHook(Hook):
    """Log what is trained, and where a validation or test stands.

    `LoggerHook` logs each batch of its `interval`; this one also logs the first batch, and one
    whenever there was no line for a while.

    Args:
        seconds: The longest time without a line, while batches take less.

    Raises:
        ValueError: If `seconds` is no number from 0.
    """

    priority = 'BELOW_NORMAL'  # behind the timer

    def __init__(self, *, seconds: float = 10.0) -> None:
        if not isinstance(seconds, (int, float)) or not seconds >= 0:
            raise ValueError(f'seconds must be a number from 0, got {seconds!r}')
        self.seconds = seconds

    def before_run(self, runner: Runner) -> None:
        """Log the line of a training."""
        if isinstance(runner._train_loop, BaseLoop):
            runner.logger.info(_training_line(runner))

    def _after_iter(
        self, runner: Runner, batch_idx: int, *args: Any, mode: str = 'train', **kwargs: Any
    ) -> None:
        if mode == 'train':
            return
        now, last = time.monotonic(), self._last if batch_idx else -math.inf
        logged = any(
            isinstance(hook, LoggerHook) and hook.every_n_inner_iters(batch_idx, hook.interval)
            for hook in runner.hooks
        )
        if logged or now - last >= self.seconds:
            self._last = now
        if not logged and self._last == now:
            runner.logger.info(runner.log_processor.get_log_after_iter(runner, batch_idx, mode)[1])


def _training_line(runner: Runner) -> str:
    """Model, parameters, images, length and device."""
    model, loop = bare(runner.model), runner.train_loop
    vit = vit_of(model)
    under = f' on {vit.model_name}' if vit else ''
    every, trained = num_parameters(model)
    share = 'all' if every == trained else _millions(trained)
    lasts = counted(loop.max_iters, 'iteration')
    if isinstance(loop, EpochBasedTrainLoop):
        lasts = f'{counted(loop.max_epochs, "epoch")}, {lasts}'
    return (
        f'training {type(model).__name__}{under}: {_millions(every)} parameters, {share} trained; '
        f'{_images(loop.dataloader)}; {lasts}; {device_name()}{_precision(runner.optim_wrapper)}'
    )


def _precision(optim_wrapper: Any) -> str:
    dtype = getattr(optim_wrapper, 'cast_dtype', None)
    return '' if dtype is None else f', mixed precision in {str(dtype).removeprefix("torch.")}'


def _millions(number: int) -> str:
    return f'{number / 1e6:.1f} M' if number >= 1e6 else f'{number:,}'


def _images(loader: Any) -> str:
    """Their number, and the size of batches in all processes."""
    size = getattr(getattr(loader, 'batch_sampler', None), 'batch_size', None)
    batches = f' in batches of {size * get_world_size()}' if size else ''
    known = hasattr(loader.dataset, '__len__')
    return f'{counted(len(loader.dataset), "image")}{batches}' if known else f'images{batches}'
