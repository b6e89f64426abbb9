"""Checkpoints of which there is always a whole one."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch.distributed.fsdp import FullyShardedDataParallel

from vit_backbones.checks.wiring import bare
from vit_backbones.training.last_checkpoint import EPOCH_ITERS

INTERRUPTED = 'interrupted.pth'  # in the work dir, what Ctrl-C and SIGTERM save
_GRADIENTS = 'gradients'  # in a checkpoint, those since the last step of the optimizer


@HOOKS.register_module()
class KeptCheckpointHook(CheckpointHook):
    """MMEngine's `CheckpointHook`, which removes an old checkpoint only after the new one is whole.

    Between the steps of accumulated gradients a checkpoint keeps these too, except for FSDP's.
    What Ctrl-C saved, `interrupted.pth`, is removed once there is a newer checkpoint.
    `tools/train.py` takes it for `default_hooks.checkpoint`; arguments and names are MMEngine's.
    """

    def _save_checkpoint_with_step(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        with self._removing_later():
            super()._save_checkpoint_with_step(runner, *args, **kwargs)
        if is_main_process():
            (Path(runner.work_dir) / INTERRUPTED).unlink(missing_ok=True)

    def _save_best_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with self._removing_later():
            super()._save_best_checkpoint(*args, **kwargs)

    @contextlib.contextmanager
    def _removing_later(self) -> Iterator[None]:
        """Remove files only if all else went well."""
        backend = self.file_backend
        if isinstance(backend, _RemovesLater):
            yield
            return
        self.file_backend = later = _RemovesLater(backend)
        try:
            yield
        finally:
            self.file_backend = backend
        for remove in later.removals:
            remove()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Note gradients that no step has used yet, and the length of an epoch."""
        checkpoint['meta'][EPOCH_ITERS] = len(runner.train_dataloader)
        if 'optimizer' not in checkpoint or not accumulates(runner):
            pass
        elif has_shards(runner):
            runner.logger.warning(
                'a checkpoint between two steps of the optimizer lacks the gradients since the '
                'first one with FSDP: a resume leaves them out'
            )
        else:
            checkpoint[_GRADIENTS] = {
                name: parameter.grad.cpu()
                for name, parameter in bare(runner.model).named_parameters()
                if parameter.grad is not None
            }

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Put them back, if the training is resumed."""
        if not runner._resume:
            return
        parameters = dict(bare(runner.model).named_parameters())
        for name, gradient in checkpoint.get(_GRADIENTS, {}).items():
            parameters[name].grad = gradient.to(parameters[name])


class _RemovesLater:
    """A file backend that notes what to remove."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.removals: list[Callable[[], None]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self.removals.append(lambda: self._backend.remove(path))

    def rmtree(self, path: str) -> None:
        self.removals.append(lambda: self._backend.rmtree(path))


def accumulates(runner: Runner) -> bool:
    """Whether gradients wait for further batches before the optimizer uses them."""
    wrapper = runner.optim_wrapper
    return getattr(wrapper, '_inner_count', 0) % getattr(wrapper, '_accumulative_counts', 1) != 0


def has_shards(runner: Runner) -> bool:
    """Whether no process has a whole gradient."""
    return isinstance(runner.model, FullyShardedDataParallel)


def share_gradients(runner: Runner) -> None:
    """Let all processes hold the mean of gradients that wait, so that one file can keep them.

    DDP takes their mean in the end all the same. Nothing happens if they were shared since the last
    iteration.
    """
    count = getattr(runner.optim_wrapper, '_inner_count', 0)
    shared, runner.shared_at = getattr(runner, 'shared_at', None), count
    alone = get_world_size() == 1 or has_shards(runner)
    if alone or not accumulates(runner) or shared == count:
        return
    for parameter in runner.model.parameters():
        if parameter.grad is not None:
            torch.distributed.all_reduce(parameter.grad.div_(get_world_size()))


@contextlib.contextmanager
def whole_file(folder: Path, filename: str) -> Iterator[str]:
    """Name of a draft, which takes the name of the file once it is on the disk."""
    draft = folder / f'.{filename}.draft'
    if '://' in str(folder):
        yield filename
        return
    try:
        yield draft.name
        if is_main_process():
            with draft.open('rb') as file:
                os.fsync(file.fileno())
            draft.replace(folder / filename)
    finally:
        if is_main_process():
            draft.unlink(missing_ok=True)
