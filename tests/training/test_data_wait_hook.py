"""A training that waits for its data says what helps, once."""

import logging
from types import SimpleNamespace

import pytest
import torch

from vit_backbones.training import data_wait_hook
from vit_backbones.training.data_wait_hook import DataWaitHook


@pytest.fixture
def lines(monkeypatch):
    """The warnings of a training of given times; `on_gpu` is what a GPU takes for a step."""

    def run(data, step, workers, cores=16, iters=130, validation=0.0, on_gpu=None, epoch=1000):
        clock, said = SimpleNamespace(now=0.0, gpu=0.0), []
        monkeypatch.setattr(data_wait_hook.time, 'monotonic', lambda: clock.now)
        monkeypatch.setattr(data_wait_hook, 'free_cores', lambda launcher: cores)
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: on_gpu is not None)
        monkeypatch.setattr(torch.cuda, 'Event', lambda enable_timing: Event(clock))
        loop = SimpleNamespace(dataloader=SimpleNamespace(num_workers=workers))
        logger = logging.Logger('waits')
        logger.warning = said.append
        runner = SimpleNamespace(train_loop=loop, cfg={}, logger=logger)
        hook = DataWaitHook()
        hook.before_train(runner)
        for i in range(iters):
            if i % 20 == 0 and validation:
                clock.now += validation
                hook.after_val(runner)
            clock.now += data if i >= 10 and i % epoch else 100 * data  # workers start
            hook.before_train_iter(runner, i % epoch)
            clock.gpu = max(clock.now, clock.gpu) + (on_gpu or 0.0)
            clock.now += step
            hook.after_train_iter(runner, i % epoch)
        return said

    return run


class Event:
    """CUDA's: its moment is when the GPU has done what it was given before."""

    def __init__(self, clock):
        self.clock = clock

    def record(self):
        self.moment = max(self.clock.now, self.clock.gpu)

    def synchronize(self):
        self.clock.now = max(self.clock.now, self.moment)

    def elapsed_time(self, other):
        return 1e3 * (other.moment - self.moment)


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
            '38% of its time, and has 4 workers on 4 cores: store images in the size that it '
            'takes, leave out the slowest transforms, or use a machine with more cores',
        ),
        (
            0.06,
            1,
            1,
            '38% of its time, and has 1 worker on 1 core: store images in the size that it takes, '
            'leave out the slowest transforms, or use a machine with more cores',
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


def test_the_first_batch_of_an_epoch_is_no_wait_that_workers_end(lines):
    assert lines(0.001, 0.1, 1, epoch=8) == []
    assert len(lines(0.06, 0.1, 1, epoch=8)) == 1


@pytest.mark.parametrize(
    ('data', 'on_gpu', 'share'),
    [
        (0.06, 0.2, None),  # the host is ahead
        (0.097, 0.1, None),  # the data are late by less than a twentieth of the step
        (0.11, 0.1, 11),
        (0.3, 0.1, 67),
    ],
)
def test_on_a_gpu_only_the_time_counts_in_which_it_has_nothing_to_do(data, on_gpu, share, lines):
    found = lines(data, 0.002, 1, on_gpu=on_gpu)
    expected = [f'the training waits for data {share}% of its time'] if share else []
    assert [line.split(':')[0] for line in found] == expected


def test_a_number_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r'^num_iters must be at least 1, got 0$'):
        DataWaitHook(num_iters=0)
