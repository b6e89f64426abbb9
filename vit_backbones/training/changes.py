"""Changes of a config that one argument of a training makes."""

from collections.abc import Iterator
from typing import NamedTuple

from mmengine.config import Config

from vit_backbones.arguments import flag
from vit_backbones.training.backends import BACKENDS, follow
from vit_backbones.training.length import make_trial, scale_rate, set_epochs

# A rate of averaging that begins at 1 and falls to `momentum`, so that short trainings have one too
_EMA = dict(type='EMAHook', ema_type='MomentumAnnealingEMA', momentum=0.0002, gamma=100)


class Changes(NamedTuple):
    """Arguments of `run.train` with these names."""

    epochs: int | None = None
    scale_lr: bool = False
    ema: bool = False
    early_stopping: int | None = None
    trial: bool = False
    tensorboard: bool = False
    wandb: bool = False
    mlflow: bool = False

    def make(self, config: Config) -> Iterator[str]:
        """Change the config in place; gives a line for each number that changes."""
        for name in ('scale_lr', 'ema', 'trial', *BACKENDS):
            flag(name, getattr(self, name))
        if self.epochs is not None:
            yield set_epochs(config, self.epochs)
        if self.trial:
            yield make_trial(config)
        if self.scale_lr:
            yield scale_rate(config)
        if self.ema:
            average_weights(config)
        if self.early_stopping is not None:
            stop_early(config, self.early_stopping)
        follow(config, [name for name in BACKENDS if getattr(self, name)])


def average_weights(config: Config) -> None:
    """Validate and keep an average of the weights too, by MMEngine's `EMAHook`.

    Raises:
        ValueError: If the config averages already.
    """
    hooks = list(config.get('custom_hooks') or ())
    if any('EMAHook' in str(hook.get('type')) for hook in hooks):
        raise ValueError('ema=True: the config has an EMAHook already; leave one out')
    config.custom_hooks = [*hooks, dict(_EMA)]


def stop_early(config: Config, patience: int) -> None:
    """End the training after so many validations in a row without a better main metric.

    Raises:
        ValueError: If the config does that already, or does not validate.
    """
    hooks = list(config.get('custom_hooks') or ())
    if any(hook.get('type') in ('EarlyStoppingHook', 'PatienceHook') for hook in hooks):
        raise ValueError('early_stopping=...: the config has an EarlyStoppingHook; leave one out')
    if not config.get('val_dataloader'):
        raise ValueError('early_stopping=... is for a training that validates: set val_dataloader')
    config.custom_hooks = [*hooks, dict(type='PatienceHook', patience=patience)]
