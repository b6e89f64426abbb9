"""MMEngine's training loops, which go on within an epoch, stop cleanly, and miss no validation."""

import os
from collections.abc import Sequence
from typing import Any

from mmengine.dist import get_rank
from mmengine.hooks import EMAHook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch import nn

from vit_backbones.training.kept_checkpoint_hook import (
    INTERRUPTED,
    accumulates,
    has_shards,
    share_gradients,
)
from vit_backbones.training.lost_process import of_others
from vit_backbones.training.seeded_data import Sample, seed_all
from vit_backbones.training.stopping import Stopped

_VALIDATED = 'iter_of_validation'  # in the message hub, and so in every checkpoint


class _Resumable:
    """What both loops do besides MMEngine's."""

    samples: Sequence[Sample] = ()  # of the batch that is trained

    def run_iter(self, *args: Any) -> None:
        """Train one batch; what it draws depends on the seed and the iteration only."""
        runner = self.runner
        if given := getattr(self.dataloader.batch_sampler, 'given', None):
            self.samples = given.popleft()
        apart = runner._randomness_cfg.get('diff_rank_seed', False)
        seed_all(abs(runner.seed), self._iter, get_rank() if apart else 0)
        super().run_iter(*args)

    def heed_stop(self) -> None:
        """Save and stop, if any process was asked to; with FSDP only after a step."""
        if has_shards(self.runner) and accumulates(self.runner):
            return
        if number := self.runner.stop.anywhere():
            self._save()
            raise Stopped(number)

    def validate_if_due(self) -> None:
        """Validate after this iteration, also where a killed training had not come to that."""
        self._decide_current_val_interval()
        hub, loop = self.runner.message_hub, self.runner.val_loop
        if loop is None or not self._is_due() or hub.get_info(_VALIDATED) == self._iter:
            return
        hub.update_info(_VALIDATED, self._iter)
        share_gradients(self.runner)  # a process that is lost later cannot take part
        try:
            loop.run()
        except (Stopped, RuntimeError) as error:
            asked = not error.at_once if isinstance(error, Stopped) else of_others(error)
            if asked and self.runner.is_validating:
                hub.update_info(_VALIDATED, None)
                self._save_as_before_validation()
            raise

    def _save_as_before_validation(self) -> None:
        for hook in self.runner.hooks:
            if isinstance(hook, EMAHook):  # the model has the averaged weights
                hook._swap_ema_parameters()
        self._save()

    def _save(self) -> None:
        meta = dict(epoch=self._epoch, iter=self._iter)
        self.runner.save_checkpoint(
            os.fspath(self.runner.work_dir), INTERRUPTED, meta=meta, by_epoch=False
        )

    def _at(self, done: int, total: int) -> bool:
        """Whether validations come after this many epochs or iterations."""
        due = done % self.val_interval == 0 or done == total
        return done > 0 and done >= self.val_begin and due


class ResumableEpochLoop(_Resumable, EpochBasedTrainLoop):
    """MMEngine's `EpochBasedTrainLoop`, exact after a resume, also within an epoch.

    Each iteration draws random numbers of its own. `runner.stop`, where it is asked for, ends the
    training after an iteration or in a validation, and `interrupted.pth` is saved first.
    `tools/train.py` takes it for `train_cfg.by_epoch=True`.
    """

    def run(self) -> nn.Module:
        """Train all epochs that are left."""
        self.runner.call_hook('before_train')
        if self._iter == self._epoch * len(self.dataloader):
            self.validate_if_due()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self.heed_stop()
            self.validate_if_due()
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_epoch(self) -> None:
        """Train the batches of an epoch that are left."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        first = getattr(self.dataloader.batch_sampler, 'skip', 0)
        for index, batch in enumerate(self.dataloader, first):
            self.run_iter(index, batch)
            if index + 1 < len(self.dataloader):
                self.heed_stop()
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def _is_due(self) -> bool:
        return self._at(self._epoch, self._max_epochs)


class ResumableIterLoop(_Resumable, IterBasedTrainLoop):
    """MMEngine's `IterBasedTrainLoop`, likewise; a resume loads no batch that was trained."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        sampler = getattr(self.dataloader.batch_sampler, 'sampler', None)
        self.dataloader_iterator._epoch = getattr(sampler, 'epoch', 0)

    def run(self) -> nn.Module:
        """Train all iterations that are left."""
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self.validate_if_due()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            batch: Sequence[dict] = next(self.dataloader_iterator)
            self.run_iter(batch)
            self.heed_stop()
            self.validate_if_due()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def _is_due(self) -> bool:
        return self._at(self._iter, self._max_iters)


# The types of `train_cfg` that these take the place of
RESUMABLE = {'EpochBasedTrainLoop': ResumableEpochLoop, 'IterBasedTrainLoop': ResumableIterLoop}
