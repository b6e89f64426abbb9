"""One iteration of a training again, in place of the training."""

from typing import Any

from mmengine.runner import BaseLoop

from vit_backbones.checks.wiring import bare
from vit_backbones.training.non_finite import Report, run_again


class ReplayLoop(BaseLoop):
    """Run the batch of a `non_finite_iter_*.pth` once more, with the weights in it.

    `report` then is what it showed. `train(config, replay=file)` takes it.

    Args:
        runner: Of the config that the file is of.
        dataloader: Of the training.
        file: Which a training wrote.
    """

    epoch, max_epochs = 0, 1

    def __init__(self, runner: Any, dataloader: Any, file: str) -> None:
        super().__init__(runner, dataloader)
        self.report, self._weights = Report.load(file)

    @property
    def iter(self) -> int:
        """Iterations before the one of the file."""
        return self.report.iter

    @property
    def max_iters(self) -> int:
        """Iterations of the training."""
        return self.report.total

    def run(self) -> None:
        """Run it."""
        model, wrapper = bare(self.runner.model), self.runner.optim_wrapper
        model.load_state_dict(self._weights)  # only now: the runner initialises it before
        self.report = run_again(self.report, model, wrapper, self.dataloader)


def replaying(runner: Any, file: str) -> Any:
    """The runner with this loop as its training."""
    runner._train_loop = dict(type=ReplayLoop, file=file)
    return runner
