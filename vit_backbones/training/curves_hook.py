"""Draw loss and metrics into the work dir while a model trains."""

from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, Runner

from vit_backbones.files import write_whole
from vit_backbones.heads.auxiliary import HEAD_START
from vit_backbones.pictures.canvas import figure_file
from vit_backbones.pictures.curves import draw_curves

# Key in the message hub, and so in every checkpoint; MMEngine logs those that begin with `val`
VALIDATIONS = 'metric_history'


@HOOKS.register_module()
class CurvesHook(Hook):
    """Draw the training loss and the validation metrics into a PNG in the work dir.

    Draws after each validation and at the end. The values live in the message hub, so a resumed
    run continues its curves.

    Args:
        filename: Name of the picture.
    """

    def __init__(self, *, filename: str = 'curves.png') -> None:
        self.filename = filename

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Note the metrics and draw."""
        if not isinstance(runner._train_loop, BaseLoop):  # a validation without training
            return
        numbers = {
            name: float(value)
            for name, value in (metrics or {}).items()
            if isinstance(value, (int, float, np.number))
        }
        entry = {'epoch': runner.epoch, 'iter': runner.iter, 'metrics': numbers}
        runner.message_hub.update_info(VALIDATIONS, [*validations(runner), entry])
        self._draw(runner)

    def after_train(self, runner: Runner) -> None:
        """Draw once more: iterations may follow the last validation."""
        self._draw(runner)

    def _draw(self, runner: Runner) -> None:
        if not is_main_process():
            return
        scalars = runner.message_hub.log_scalars
        losses = scalars['train/loss'].data[0] if 'train/loss' in scalars else np.zeros(0)
        start = runner.message_hub.get_info(HEAD_START)
        marks = {} if start is None else {start: 'the head starts'}
        figure = draw_curves(losses, validations(runner), marks)
        write_whole(Path(runner.work_dir) / self.filename, figure_file(figure))


def validations(runner: Runner) -> list[dict[str, Any]]:
    """`epoch`, `iter` and `metrics` of each validation so far, also of those before a resume."""
    return runner.message_hub.get_info(VALIDATIONS, [])
