"""End a training whose main metric no longer improves, also after a resume."""

from typing import Any

from mmengine.hooks import EarlyStoppingHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from vit_backbones.arguments import integer
from vit_backbones.metrics import headline

_STATE = 'patience'  # in the message hub, and so in every checkpoint


@HOOKS.register_module()
class PatienceHook(EarlyStoppingHook):
    """MMEngine's `EarlyStoppingHook` for the main metric, whose count survives a resume.

    Args:
        patience: Validations in a row without a better value, from 1, after which the training
            ends.
        monitor: The metric; `'auto'` is that of `save_best`, else the main one of the first
            validation.
        min_delta: By how much a value must be better to count, in the metric's own unit; 0 counts
            an equal one too.
        **kwargs: Those of `EarlyStoppingHook`.
    """

    def __init__(
        self,
        patience: int = 5,
        monitor: str = 'auto',
        min_delta: float = 1e-6,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            monitor=monitor,
            rule=kwargs.pop('rule', 'greater' if monitor == 'auto' else None),
            patience=integer('patience', patience, 1),
            min_delta=min_delta,
            **kwargs,
        )

    def before_train(self, runner: Runner) -> None:
        """Take up the count of the checkpoint that a training goes on from."""
        state = runner.message_hub.get_info(_STATE, None)
        if state:
            self.monitor, self.best_score, self.wait_count = state

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Count, and end the training when it is time."""
        if not metrics:  # detectors that detect nothing have none
            return
        if self.monitor == 'auto':
            saving = (runner.cfg.get('default_hooks') or {}).get('checkpoint') or {}
            self.monitor = headline(metrics, saving.get('save_best'))
        super().after_val_epoch(runner, metrics)
        state = (self.monitor, float(self.best_score), int(self.wait_count))
        runner.message_hub.update_info(_STATE, list(state))
