"""Stop a training, or leave out a step, where a loss or a gradient is not finite."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_rank, is_distributed
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.optim import Optimizer

from vit_backbones.arguments import integer
from vit_backbones.checks.wiring import bare
from vit_backbones.files import short_path
from vit_backbones.training.non_finite import NonFiniteError, Report, run_again
from vit_backbones.training.seeded_data import Sample


@dataclass
class _Batch:
    """An iteration, its samples and its loss."""

    iter: int
    samples: list[Sample]
    loss: Tensor | None = None

    def has_bad_loss(self) -> bool:
        """Whether its loss is known and not finite."""
        return self.loss is not None and not bool(self.loss.isfinite())


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Take no step of the optimizer whose gradients are not finite, and stop.

    The batch is run again, layer by layer, and `non_finite_iter_<number>.pth` in the work dir gets
    the images, the losses, the first layer with an output that is not finite, the largest gradients
    and the weights before that step; `train(config, replay=file)` runs it once more.
    `tools/train.py` adds this hook. A fused optimizer leaves out the step by itself, and Python
    learns of it one step later, so that a GPU is not waited for. Where a loss is scaled (float16),
    the scaler leaves out steps, and only the loss counts.

    Args:
        max_skips: Leave out this many steps, a line for each, before one stops the training.

    Raises:
        ValueError: If `max_skips` is below 0.
        NonFiniteError: While training.
    """

    priority = 'VERY_HIGH'

    def __init__(self, *, max_skips: int = 0) -> None:
        self.max_skips = integer('max_skips', max_skips, 0)
        self._skips = 0
        self._batches: list[_Batch] = []  # since the last step
        self._waiting: tuple[list[_Batch], _Later] | None = None
        self._runner: Runner | None = None

    def before_train(self, runner: Runner) -> None:
        """Watch the optimizer."""
        self._runner = runner
        optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
        if isinstance(optimizer, Optimizer):  # MMEngine's other wrappers hold several
            optimizer.register_step_pre_hook(self._before_step)

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Note the batch."""
        self._batches.append(_Batch(runner.iter, list(getattr(runner.train_loop, 'samples', ()))))

    def after_train_iter(
        self, *args: Any, outputs: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Note the loss."""
        noted = self._batches or (self._waiting[0] if self._waiting else [])
        loss = (outputs or {}).get('loss')
        if noted and isinstance(loss, Tensor):
            noted[-1].loss = loss.detach()

    def after_train(self, runner: Runner) -> None:
        """Look at the last step."""
        self._look()

    def _before_step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
        self._look()
        batches, self._batches = self._batches, []
        scaler = getattr(self._runner.optim_wrapper, 'loss_scaler', None)
        if scaler is not None and scaler.is_enabled():
            return
        bad = self._not_finite(optimizer)
        self._waiting = batches, _Later(bad)
        if all(group.get('fused') for group in optimizer.param_groups):
            optimizer.found_inf = bad.float()  # the kernel reads it
        elif self._look():
            for group in optimizer.param_groups:
                for parameter in group['params']:
                    parameter.grad = None

    def _not_finite(self, optimizer: Optimizer) -> Tensor:
        """Whether any gradient, in any process, is not finite: a flag on the device."""
        norm = vars(self._runner.optim_wrapper).pop('clipped_norm', None)
        if norm is None:
            parameters = [each for group in optimizer.param_groups for each in group['params']]
            norm = nn.utils.get_total_norm([e.grad for e in parameters if e.grad is not None])
        bad = ~norm.isfinite()
        if is_distributed():
            bad = bad.int()
            distributed.all_reduce(bad, distributed.ReduceOp.MAX)
        return bad

    def _look(self) -> bool:
        """Whether the step that waits had to be left out."""
        if self._waiting is None:
            return False
        (batches, bad), self._waiting = self._waiting, None
        if not bad.value():
            return False
        self._skips += 1
        batch = next((each for each in batches if each.has_bad_loss()), batches[-1])
        if self._skips > self.max_skips:
            raise self._error(batch)
        self._runner.logger.warning(
            f'iteration {batch.iter + 1}: gradients are not finite, and its step is left out '
            f'({self._skips} of max_skips={self.max_skips})'
        )
        return True

    def _error(self, batch: _Batch) -> NonFiniteError:
        """Run the batch again and write the report."""
        runner = self._runner
        model, rank = bare(runner.model), get_rank()
        if not batch.samples or any(isinstance(e, FSDP) for e in model.modules()):
            return NonFiniteError(f'iteration {batch.iter + 1}: gradients are not finite')
        report = Report(batch.iter, runner.max_iters, abs(runner.seed), rank, batch.samples)
        report = run_again(report, model, runner.optim_wrapper, runner.train_dataloader)
        if report.is_finite and is_distributed():
            return NonFiniteError(
                f'iteration {batch.iter + 1}: gradients are not finite, but those of this process '
                f'are: another one has a report'
            )
        name = f'non_finite_iter_{batch.iter + 1}{f"_rank_{rank}" * (rank > 0)}.pth'
        path = Path(runner.work_dir) / name
        report.save(path, model)
        error = NonFiniteError(
            f'{report.line()}; to run it again: {short_path(path)} with replay=...'
        )
        error.of_any_process = True  # others have none to show
        return error


class _Later:
    """A flag on a device, which is read when it has arrived."""

    def __init__(self, flag: Tensor) -> None:
        self._event = None
        self._flag = flag
        if flag.is_cuda:
            self._flag = torch.empty_like(flag, device='cpu', pin_memory=True)
            self._flag.copy_(flag, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def value(self) -> bool:
        """The flag."""
        if self._event is not None:
            self._event.synchronize()
        return bool(self._flag)
