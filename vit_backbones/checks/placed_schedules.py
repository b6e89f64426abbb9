"""The schedules of `param_scheduler`: their places, and how they count a training."""

from collections.abc import Container, Iterator, Mapping
from typing import Any, NamedTuple

from vit_backbones.config.facts import type_name
from vit_backbones.errors import counted

Placed = tuple[str, dict[str, Any]]  # a schedule's place in the config, and its dict


class Length(NamedTuple):
    """Epochs of a training, `None` where iterations are counted; iterations where known.

    `epoch_length` is the number of iterations of an epoch, where known, and `accumulated` that
    of an update.
    """

    epochs: int | None
    iters: int | None
    epoch_length: int | None = None
    accumulated: int = 1

    @classmethod
    def of(
        cls,
        train_cfg: Mapping[str, Any] | None,
        epoch_length: int | None = None,
        optim_wrapper: Mapping[str, Any] | None = None,
    ) -> 'Length':
        """The length in a config, whose epochs have so many iterations."""
        accumulated = (optim_wrapper or {}).get('accumulative_counts', 1)
        epochs, iters = ((train_cfg or {}).get(key) for key in ('max_epochs', 'max_iters'))
        if isinstance(epochs, int):
            iters = epochs * epoch_length if epoch_length else None
            return cls(epochs, iters, epoch_length, accumulated)
        return cls(None, iters if isinstance(iters, int) else None, epoch_length, accumulated)

    def in_steps_of(self, schedule: Mapping[str, Any]) -> float | None:
        """In the steps of a schedule."""
        if not schedule.get('by_epoch', True):
            return self.iters
        if self.epochs is None and self.iters and self.epoch_length:
            return self.iters / self.epoch_length
        return self.epochs

    def __str__(self) -> str:
        """As the config names it."""
        if self.epochs is None:
            return f'train_cfg.max_iters={self.iters}'
        iters = '' if self.iters is None else f', {counted(self.iters, "iteration")}'
        return f'train_cfg.max_epochs={self.epochs}{iters}'


def placed(schedules: Any, place: str = 'param_scheduler') -> Iterator[Placed]:
    """The schedules of a config, in which there may be one, several, or some of each optimizer."""
    if isinstance(schedules, dict) and 'type' not in schedules:
        for name, each in schedules.items():
            yield from placed(each, f'{place}.{name}')
    elif isinstance(schedules, (list, tuple)):
        for index, each in enumerate(schedules):
            if isinstance(each, dict):
                yield f'{place}.{index}', each
    elif isinstance(schedules, dict):
        yield place, schedules


def without(schedules: Any, places: Container[str], place: str = 'param_scheduler') -> Any:
    """The schedules of a config without those at some places."""
    if isinstance(schedules, (list, tuple)):
        return [each for i, each in enumerate(schedules) if f'{place}.{i}' not in places]
    if isinstance(schedules, dict) and 'type' not in schedules:
        return {name: without(each, places, f'{place}.{name}') for name, each in schedules.items()}
    return None if place in places else schedules


def ended(schedules: Any, length: Length) -> dict[str, str]:
    """Names of the schedules that begin when they, or the training, have ended, by place."""
    found = {}
    for place, each in placed(schedules):
        end = each.get('end', length.in_steps_of(each))
        if end is not None and each.get('begin', 0) >= end:
            found[place] = f'{place} ({type_name(each)})'
    return found


def following(schedules: Any) -> set[str]:
    """Places of the schedules that begin where a warm-up ends; `fitted` moves them with it."""
    several = [each for _, each in placed(schedules)]
    led = [each for one in several if warms_up(one) for each in followers(one, several)]
    return {place for place, each in placed(schedules) if any(each is other for other in led)}


def warms_up(schedule: dict[str, Any]) -> bool:
    """Whether the rate begins low and is whole at the end of a schedule."""
    kind, end = type_name(schedule), schedule.get('end')
    if schedule.get('begin', 0) or not isinstance(end, (int, float)):
        return False
    if kind.startswith('Linear'):
        return schedule.get('start_factor', 1 / 3) < schedule.get('end_factor', 1.0) == 1.0
    return kind.startswith('Constant') and schedule.get('factor', 1 / 3) < 1.0


def followers(schedule: dict[str, Any], several: list[Any]) -> list[dict[str, Any]]:
    """Those that begin where a schedule ends."""
    by_epoch = schedule.get('by_epoch', True)
    return [
        each
        for each in several
        if isinstance(each, dict)
        and each.get('by_epoch', True) == by_epoch
        and each.get('begin', 0) == schedule.get('end')
    ]


def when(schedule: dict[str, Any], step: float) -> str:
    """A step in the unit of a schedule: `epoch 1`, `iteration 500`."""
    return f'{"epoch" if schedule.get("by_epoch", True) else "iteration"} {step:g}'
