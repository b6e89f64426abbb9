"""A hook that lets one process of a toy training die, or get a signal, at a place of choice."""

import os
import signal
from pathlib import Path

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

PLACES = (
    'start',
    'first batch',
    'batch',
    'validation',
    'gathering',
    'saving',
    'beside saving',
)


@HOOKS.register_module()
class KillHook(Hook):
    """Sends a signal to this process, once.

    Args:
        rank: Of the process.
        place: One of `PLACES`.
        epoch: In which this happens, from 0.
        number: Of the signal, 0 for an error in its place.
        to: `'self'`, `'parent'`, or `'group'` for all processes of its group.
    """

    priority = 'VERY_LOW'

    def __init__(self, rank, place, epoch=1, number=signal.SIGKILL, to='self'):
        assert place in PLACES
        self.rank, self.place, self.epoch = rank, place, epoch
        self.number, self.to = number, to

    def _at(self, runner, place, epoch):
        if place != self.place or get_rank() != self.rank or epoch != self.epoch:
            return
        marker = Path(runner.work_dir, f'sent{self.rank}')
        if not marker.exists():  # a training that goes on is spared
            marker.touch()
            if not self.number:
                raise ValueError('a fault of this process')
            os.kill(dict(self=os.getpid(), parent=os.getppid(), group=0)[self.to], self.number)

    def before_run(self, runner):
        self._at(runner, 'start', self.epoch)

    def before_train_iter(self, runner, batch_idx, **kwargs):
        if batch_idx == 0:
            self._at(runner, 'first batch', runner.epoch)
        if batch_idx == 1:
            self._at(runner, 'batch', runner.epoch)

    def after_val_iter(self, runner, batch_idx, **kwargs):
        self._at(runner, 'validation', runner.epoch - 1)
        evaluator = runner.val_loop.evaluator
        if self.place == 'gathering' and batch_idx + 1 == len(runner.val_dataloader):
            evaluate = evaluator.evaluate

            def dying(*args):
                self._at(runner, 'gathering', runner.epoch - 1)
                return evaluate(*args)

            evaluator.evaluate = dying

    def before_save_checkpoint(self, runner, checkpoint):
        self._at(runner, 'saving', checkpoint['meta']['epoch'] - 1)

    def after_train_epoch(self, runner):
        """The main process has saved, or does."""
        self._at(runner, 'beside saving', runner.epoch)
