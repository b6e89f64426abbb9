"""Processes that share shards find out by their environment alone which ones are theirs."""

import itertools

import pytest

from vit_backbones.features.sharing import Worker, this_worker

STEP = dict(SLURM_STEP_ID='0', SLURM_PROCID='1', SLURM_NTASKS='4')
ARRAY = dict(SLURM_ARRAY_TASK_ID='7', SLURM_ARRAY_TASK_MIN='5', SLURM_ARRAY_TASK_COUNT='3')


@pytest.mark.parametrize(
    ('environment', 'worker'),
    [
        ({}, (0, 1)),
        (dict(RANK='3', WORLD_SIZE='8'), (3, 8)),
        (STEP, (1, 4)),
        (STEP | dict(SLURM_STEP_NUM_TASKS='2'), (1, 2)),
        (dict(SLURM_PROCID='0', SLURM_NTASKS='8'), (0, 1)),  # the script itself, not srun
        (STEP | dict(RANK='9', WORLD_SIZE='16'), (9, 16)),  # torchrun by srun
        (ARRAY, (2, 3)),
        (ARRAY | dict(SLURM_ARRAY_TASK_ID='15', SLURM_ARRAY_TASK_STEP='5'), (2, 3)),
        (ARRAY | STEP, (9, 12)),
        (ARRAY | dict(RANK='1', WORLD_SIZE='2'), (5, 6)),
    ],
)
def test_a_process_knows_its_place(environment, worker):
    assert this_worker(environment) == worker


def test_all_places_are_taken_once():
    things = list(range(23))
    tasks = itertools.product(range(5, 8), range(4))
    found = [
        this_worker(ARRAY | STEP | dict(SLURM_ARRAY_TASK_ID=str(task), SLURM_PROCID=str(number)))
        for task, number in tasks
    ]
    assert sorted(itertools.chain(*(each.share(things) for each in found))) == things
    assert Worker(5, 30).share(things) == [5]
    assert Worker(25, 30).share(things) == []


@pytest.mark.parametrize(
    ('environment', 'message'),
    [
        (dict(RANK='8', WORLD_SIZE='8'), 'RANK makes this process 8 of 8, counted from 0'),
        (dict(RANK='-1', WORLD_SIZE='8'), "RANK='-1' in the environment is no number"),
        (dict(RANK='0', WORLD_SIZE='0'), 'RANK makes this process 0 of 0'),
        (ARRAY | dict(SLURM_ARRAY_TASK_ID='9'), 'SLURM_ARRAY_TASK_ID makes this process 4 of 3'),
    ],
)
def test_a_place_that_cannot_be_is_refused(environment, message):
    with pytest.raises(ValueError, match=message):
        this_worker(environment)
