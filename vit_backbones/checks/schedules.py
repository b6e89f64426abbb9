"""Whether the schedules of `param_scheduler` fit the length of the training.

MMEngine builds a schedule with `begin` and `end` as they stand, however long the training is.
"""

import copy
from collections.abc import Iterator
from typing import Any

from vit_backbones.checks.findings import Finding, error, warning
from vit_backbones.checks.placed_schedules import (
    Length,
    followers,
    placed,
    warms_up,
    when,
    without,
)
from vit_backbones.config.facts import Facts, listed, type_name
from vit_backbones.errors import some

COME_DOWN = (
    'CosineAnnealing',
    'Poly',
    'OneCycle',
    'TwoStageWarmupPoly',
)  # to their lowest at their end
_HALF = 2  # of the training, at most, is a warm-up that would not end within it


def schedule_findings(facts: Facts) -> Iterator[Finding]:
    """Schedules that begin or end elsewhere than the training, as far as the config shows."""
    length = Length.of(facts.config.get('train_cfg'))
    schedules, _ = fitted(facts.config.get('param_scheduler'), length)
    yield from misfits(schedules, length)


def fitted(schedules: Any, length: Length) -> tuple[Any, list[str]]:
    """A copy in which each warm-up ends within the training, and a line for each changed one.

    One that does not gets half of the training, and what begins at its end moves along. MMEngine
    never raises the rate after a warm-up of one step, so such a one is left out, and so is what
    lasts less than an iteration.
    """
    if isinstance(schedules, dict) and 'type' not in schedules:  # for several optimizers
        parts = {name: fitted(each, length) for name, each in schedules.items()}
        lines = [line for _, found in parts.values() for line in found]
        return {name: each for name, (each, _) in parts.items()}, lines
    if not all(isinstance(each, dict) for each in listed(schedules)):  # built already
        return schedules, []
    schedules, lines = copy.deepcopy(schedules), []
    several = [each for _, each in placed(schedules)]
    for place, each in placed(schedules):
        if (whole := length.in_steps_of(each)) is None:
            continue
        if length.epochs is None and each.get('convert_to_iter_based'):
            each.setdefault('end', whole)  # MMEngine's would be one epoch
        lines += _fit_both(each, place, whole, length)
        lines += _fit(each, place, several, whole, length)
    brief = dict(_brief(schedules, length))
    return without(schedules, brief), [*lines, *brief.values()]


def _brief(schedules: Any, length: Length) -> Iterator[tuple[str, str]]:
    """Place and line of each schedule whose part of an epoch is less than an iteration."""
    for place, each in placed(schedules):
        if length.epoch_length is None or not each.get('convert_to_iter_based'):
            continue
        begin, end = each.get('begin', 0), each.get('end', length.in_steps_of(each))
        if begin < end and int(begin * length.epoch_length) == int(end * length.epoch_length):
            yield (
                place,
                f'{place} ({type_name(each)}) goes from epoch {begin:g} to {end:g}, less than an '
                f'iteration of this training ({length}): it is left out',
            )


def _fit(
    schedule: dict[str, Any], place: str, several: list[dict[str, Any]], whole: int, length: Length
) -> Iterator[str]:
    """Let a warm-up end within the training; a line if it did not."""
    if not warms_up(schedule):
        return
    named = f'{place} ({type_name(schedule)}) warms up until {when(schedule, schedule["end"])}, and'
    if is_late := _outlasts(schedule, several, whole):
        _halve(schedule, several, whole, length)
    if (steps := _num_steps(schedule, length)) in (0, 1):
        schedule.update({'start_factor' if 'Linear' in type_name(schedule) else 'factor': 1.0})
        if not steps:  # MMEngine takes none that is empty
            schedule.update(by_epoch=False, convert_to_iter_based=False, end=1)
        why = ', after which the rate would stay low' * steps
        yield (
            f'{named} has {("no", "one")[steps]} step in this training ({length}){why}: it is '
            f'left out'
        )
    elif is_late:
        yield (
            f'{named} the training ends no later ({length}): it is shortened to half of the '
            f'training'
        )


def misfits(schedules: Any, length: Length) -> Iterator[Finding]:
    """Schedules that begin, drop or end elsewhere than the training."""
    nodes = [each for _, each in placed(schedules)]
    for place, each in placed(schedules):
        if (whole := length.in_steps_of(each)) is None:
            yield from _never_steps(each, place, length)
            continue
        named, begin = f'{place} ({type_name(each)})', each.get('begin', 0)
        end = each.get('end', whole)
        if begin >= whole:
            yield (error if end <= begin else warning)(
                f'{named} begins at {when(each, begin)}, when the training has ended ({length}): '
                f'set its begin lower, or train longer'
            )
        elif late := [at for at in listed(each.get('milestones')) if at >= whole]:
            yield warning(
                f'{named} has the milestones {some(late)} behind the end of the training '
                f'({length}): the rate does not drop there; move them, or train longer'
            )
        elif _comes_down(each):
            yield from _ends_elsewhere(each, named, whole, length, bool(followers(each, nodes)))


def _never_steps(schedule: dict[str, Any], place: str, length: Length) -> Iterator[Finding]:
    """Whether a schedule counts epochs in a training that knows none."""
    if length.iters is not None and not schedule.get('convert_to_iter_based'):
        yield warning(
            f'{place} ({type_name(schedule)}) counts epochs, and the training iterations '
            f'({length}): it never steps; set its by_epoch=False, and its begin and end in '
            f'iterations'
        )


def _ends_elsewhere(
    schedule: dict[str, Any], named: str, whole: int, length: Length, is_followed: bool
) -> Iterator[Finding]:
    """Whether a schedule comes down with the end of the training."""
    begin, end = schedule.get('begin', 0), schedule.get('end', whole)
    lowest = begin + schedule['T_max'] if schedule.get('T_max') else end
    key = 'T_max' if schedule.get('T_max') else 'end'
    if max(lowest, end) > whole:
        yield warning(
            f'{named} comes down until {when(schedule, max(lowest, end))}, and the training ends '
            f'before ({length}): the rate does not get there; leave its {key} out, and it ends '
            f'with the training'
        )
    elif end < whole and not is_followed:
        yield warning(
            f'{named} ends at {when(schedule, end)}, and the training later ({length}): the rest '
            f'has the rate that is reached there; leave its end out, and it ends with the training'
        )


def _fit_both(schedule: dict[str, Any], place: str, whole: int, length: Length) -> Iterator[str]:
    """Let both warm-ups end within the training: in half of it, if they do not."""
    given = schedule.get('warmup') if type_name(schedule).startswith('TwoStageWarmup') else None
    if not isinstance(given, (list, tuple)) or not all(isinstance(e, (int, float)) for e in given):
        return  # in parts of the training, or not as the schedule takes it
    by_epoch = schedule.get('by_epoch', True)
    each = 1 if by_epoch else length.accumulated
    if (late := sum(given) * each) >= whole:
        schedule['warmup'] = [part * whole / late / _HALF for part in given]
        if not by_epoch:
            schedule['warmup'] = [int(part) for part in schedule['warmup']]
        yield (
            f'{place} ({type_name(schedule)}) warms up until {when(schedule, late)}, and the '
            f'training ends no later ({length}): its warm-ups are shortened to half of the training'
        )


def _outlasts(schedule: dict[str, Any], several: list[dict[str, Any]], whole: int) -> bool:
    """Whether the training does not see the end of a warm-up, or nothing behind it."""
    end = schedule['end']
    return end > whole or (end == whole and bool(followers(schedule, several)))


def _halve(
    schedule: dict[str, Any], several: list[dict[str, Any]], whole: int, length: Length
) -> None:
    """End a warm-up at half of the training; in one of a single iteration nothing comes later."""
    single = length.iters == 1
    for follower in followers(schedule, several):
        _move(follower, 'begin', 0 if single else whole)
    _move(schedule, 'end', 2 if single else whole)


def _num_steps(schedule: dict[str, Any], length: Length) -> int | None:
    """Steps of a warm-up; `None` if it is not known how many iterations an epoch has."""
    end = schedule['end']
    if not schedule.get('by_epoch', True) or not schedule.get('convert_to_iter_based'):
        return int(end)
    return None if length.epoch_length is None else int(end * length.epoch_length)


def _comes_down(schedule: dict[str, Any]) -> bool:
    kind = type_name(schedule)
    falls = schedule.get('start_factor', 1 / 3) > schedule.get('end_factor', 1.0)
    return kind.startswith(COME_DOWN) or (kind.startswith('Linear') and falls)


def _move(schedule: dict[str, Any], key: str, whole: int) -> None:
    """Set `begin` or `end` to half of so many steps, of an epoch too."""
    schedule[key] = whole // _HALF
    if schedule.get('by_epoch', True) and (whole % _HALF or schedule.get('convert_to_iter_based')):
        schedule.update({key: whole / _HALF, 'by_epoch': True, 'convert_to_iter_based': True})
