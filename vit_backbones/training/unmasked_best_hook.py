"""Only validations without masks of attention count for the best checkpoint."""

from typing import Any

from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from vit_backbones.checks.wiring import bare
from vit_backbones.heads.iteration import Iteration
from vit_backbones.heads.mask_annealing import MaskAnnealing


@HOOKS.register_module()
class UnmaskedBestHook(Hook):
    """`save_best` counts only from where all masks of attention are off, as in inference.

    For models with a head that anneals masks, as EoMT's; others are as without this hook.
    `tools/train.py` adds it. With mmdet's or mmseg's own tools, add
    `custom_hooks=[dict(type='UnmaskedBestHook')]`.
    """

    priority = 'LOW'  # before `CheckpointHook`

    def __init__(self) -> None:
        self._annealed: list[MaskAnnealing] = []
        self._kept: dict[CheckpointHook, Any] = {}

    def before_train(self, runner: Runner) -> None:
        """Find what anneals; log from where validations count."""
        modules = bare(runner.model).modules()
        found = [getattr(module, 'annealing', None) for module in modules]
        self._annealed = [each for each in found if isinstance(each, MaskAnnealing)]
        if not self._annealed:
            return
        first, total = self._first(runner.max_iters), runner.max_iters
        if first > total:
            runner.logger.warning(
                f'masks of attention are on until iteration {first}, and the training has {total}: '
                f'inference runs without masks, so let annealing end within the training (ints '
                f'are iterations, floats fractions of the training)'
            )
        elif _savers(runner) and first > 0:
            runner.logger.info(
                f'save_best counts from iteration {first} of {total}, where all masks of attention '
                f'are off'
            )

    def before_val(self, runner: Runner) -> None:
        """Let no checkpoint be the best of a validation with masks."""
        now = Iteration.current()
        if now is None or not self._annealed or now.done >= self._first(now.total):
            return
        self._kept = {hook: hook.save_best for hook in _savers(runner)}
        for hook in self._kept:
            hook.save_best = None

    def after_val(self, runner: Runner) -> None:
        """Let the next one count, as far as this hook is concerned."""
        for hook, value in self._kept.items():
            hook.save_best = value
        self._kept = {}

    def _first(self, total: int) -> int:
        return max(each.off_from(total) for each in self._annealed)


def _savers(runner: Runner) -> list[CheckpointHook]:
    return [h for h in runner.hooks if isinstance(h, CheckpointHook) and h.save_best]
