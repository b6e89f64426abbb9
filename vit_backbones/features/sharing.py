"""Which of several processes does what, known from the environment alone: nobody is asked."""

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

_T = TypeVar('_T')


class Worker(NamedTuple):
    """One of `count` processes that share work, with a number from 0."""

    number: int = 0
    count: int = 1

    def share(self, things: Sequence[_T]) -> Sequence[_T]:
        """Its own part: each `count`-th thing."""
        return things[self.number :: self.count]


def this_worker(environment: Mapping[str, str] = os.environ) -> Worker:
    """This process among those of torchrun, `srun` and a SLURM array, of any number of machines.

    `RANK` and `WORLD_SIZE` (torchrun) count before `SLURM_PROCID`, which counts only in a step of
    `srun`: the script of a job has it too. The tasks of an array multiply them.

    Raises:
        ValueError: If one of these variables is no number, or out of its range.
    """
    inner = Worker()
    if 'WORLD_SIZE' in environment:
        inner = _worker(environment, 'RANK', 'WORLD_SIZE')
    elif 'SLURM_STEP_ID' in environment:
        counts = [n for n in ('SLURM_STEP_NUM_TASKS', 'SLURM_NTASKS') if n in environment]
        inner = _worker(environment, 'SLURM_PROCID', *counts[:1])
    if 'SLURM_ARRAY_TASK_ID' not in environment:
        return inner
    task, first = (_number(environment, f'SLURM_ARRAY_TASK_{n}', 0) for n in ('ID', 'MIN'))
    step = max(1, _number(environment, 'SLURM_ARRAY_TASK_STEP', 1))
    count = _number(environment, 'SLURM_ARRAY_TASK_COUNT', 1)
    outer = _checked((task - first) // step, count, 'SLURM_ARRAY_TASK_ID')
    return Worker(outer.number * inner.count + inner.number, outer.count * inner.count)


def _worker(environment: Mapping[str, str], number: str, count: str = '') -> Worker:
    return _checked(_number(environment, number, 0), _number(environment, count, 1), number)


def _checked(number: int, count: int, name: str) -> Worker:
    if not 0 <= number < count:
        raise ValueError(f'{name} makes this process {number} of {count}, counted from 0')
    return Worker(number, count)


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, str(default))
    if not text.strip().isdecimal():
        raise ValueError(f'{name}={text!r} in the environment is no number')
    return int(text)
