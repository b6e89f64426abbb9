"""A training that waits for its data says what helps, once."""

import logging
from types import SimpleNamespace

import pytest
import torch

from vit_backbones.training import data_wait_hook
from vit_backbones.training.data_wait_hook import DataWaitHook


@pytest.fixture
def lines(monkeypatch):
    """The warnings of a training of given times."""

    def run(data, step, workers, cores=16, iters=130, validation=0.0, idle=None):
        clock, said = [0.0], []
        monkeypatch.setattr(data_wait_hook.time, 'monotonic', lambda: clock[0])
        monkeypatch.setattr(data_wait_hook, 'free_cores', lambda launcher: cores)
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: idle is not None)
        stream = SimpleNamespace(query=lambda: idle)
        monkeypatch.setattr(torch.cuda, 'current_stream', lambda: stream)
        loop = SimpleNamespace(dataloader=SimpleNamespace(num_workers=workers))
        logger = logging.Logger('waits')
        logger.warning = said.append
        runner = SimpleNamespace(train_loop=loop, cfg={}, logger=logger)
        hook = DataWaitHook()
        hook.before_train(runner)
        for i in range(iters):
            if i % 20 == 0 and validation:
                clock[0] += validation
                hook.after_val(runner)
            clock[0] += data if i >= 10 else 100 * data  # workers start
            hook.before_train_iter(runner, i)
            clock[0] += step
            hook.after_train_iter(runner, i)
        return said

    return run


@pytest.mark.parametrize(
    ('data', 'workers', 'cores', 'line'),
    [
        (0.004, 1, 16, None),
        (0.06, 1, 16, '38% of its time: set train_dataloader.num_workers=2, which is 1 now'),
        (0.4, 2, 16, '80% of its time: set train_dataloader.num_workers=10, which is 2 now'),
        (0.4, 2, 6, '80% of its time: set train_dataloader.num_workers=6, which is 2 now'),
        (0.05, 0, 16, '33% of its time: set train_dataloader.num_workers=1, which is 0 now'),
        (
            0.06,
            4,
            4,
            '38% of its time, and its 4 workers have only 4 cores: store images in the size that '
            'it takes, leave out the slowest transforms, or use a machine with more cores',
        ),
    ],
)
def test_it_warns_once_and_says_what_helps(data, workers, cores, line, lines):
    expected = [f'the training waits for data {line}'] if line else []
    assert lines(data, 0.1, workers, cores) == expected


def test_a_short_training_has_no_line(lines):
    assert lines(0.4, 0.1, 1, iters=109) == []
    assert len(lines(0.4, 0.1, 1, iters=110)) == 1


def test_a_validation_is_no_wait(lines):
    assert lines(0.001, 0.1, 1, validation=60.0) == []


def test_a_gpu_that_still_computes_waits_for_nothing(lines):
    assert lines(0.06, 0.1, 1, idle=False) == []
    assert len(lines(0.06, 0.1, 1, idle=True)) == 1


def test_a_number_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r'^num_iters must be at least 1, got 0$'):
        DataWaitHook(num_iters=0)
