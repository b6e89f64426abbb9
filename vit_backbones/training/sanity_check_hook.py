"""Validate two batches before the first epoch, so that a fault there shows at once."""

import math

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner, ValLoop

from vit_backbones.checks.training_parts import monitor_findings
from vit_backbones.checks.validating import ValidationError, validate
from vit_backbones.errors import counted


@HOOKS.register_module()
class SanityCheckHook(Hook):
    """Validate the first batches of the validation data before the first epoch.

    As Lightning's sanity check does. No hook sees it, its metrics are thrown away, and all random
    generators continue where they were. A resumed training, one that never validates, MMEngine's
    other loops and datasets without indices do without.

    Args:
        num_batches: How many batches, in each process.

    Raises:
        ValueError: If `num_batches` is below 1.
        ValidationError: Before the training, if the validation fails.
    """

    priority = 'HIGHEST'

    def __init__(self, *, num_batches: int = 2) -> None:
        if num_batches < 1:
            raise ValueError(f'num_batches must be at least 1, got {num_batches}')
        self.num_batches = num_batches

    def before_train(self, runner: Runner) -> None:
        """Validate, if the training starts anew."""
        loop = runner.val_loop
        if type(loop) is not ValLoop or runner.iter > 0 or not _will_validate(runner.train_loop):
            return
        try:
            done = validate(
                runner.model,
                loop.dataloader,
                loop.evaluator,
                count=self.num_batches,
                fp16=loop.fp16,
            )
            if done is None:
                return
            for finding in monitor_findings(runner.hooks, done.metrics):
                raise ValidationError(finding.text)
        except ValidationError as failure:
            raise ValidationError(
                f'a validation step before the first epoch fails: {failure} (sanity_check=False '
                f'leaves this step out)'
            ) from failure
        if torch.cuda.is_initialized():  # memory is that of the training
            torch.cuda.reset_peak_memory_stats()
        batches = counted(done.batches, 'batch')
        runner.logger.info(f'validated {batches} before the first epoch: {done.seconds:.1f} s')


def _will_validate(loop: BaseLoop) -> bool:
    """Whether a training reaches its first validation."""
    count = 'max_epochs' if isinstance(loop, EpochBasedTrainLoop) else 'max_iters'
    return getattr(loop, 'val_begin', 1) <= getattr(loop, count, math.inf)
