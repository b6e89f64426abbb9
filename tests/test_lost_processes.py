"""One of two processes dies, fails or hangs: the other one ends with a line that says so."""

import signal
import sys
import time

import pytest
from conftest import REPOSITORY
from kill_hook import PLACES
from mmengine.dist import get_rank
from mmengine.registry import MODELS
from toy_task import ToyModel, write_toy_config
from two_processes import TwoProcesses

KILL = """
custom_imports['imports'].append('kill_hook')
custom_hooks = [dict(type='KillHook', rank={rank}, place={place!r}, number={number})]
"""


def train(folder, rank, place, number=signal.SIGKILL, more=''):
    """Codes of both processes, what the other one said, and seconds."""
    text, start = KILL.format(place=place, rank=rank, number=int(number)) + more, time.monotonic()
    pair = TwoProcesses(folder, write_toy_config(folder, 'toy', more=text), '--work-dir', 'w')
    codes = pair.wait(100, [1 - rank] if number == signal.SIGSTOP else None)
    return codes, pair.said(1 - rank), time.monotonic() - start


def lost(folder, what, name):
    command = f'{sys.executable} {REPOSITORY}/tools/train.py {folder}/toy.py'
    return (
        f'error: another process {what}; the last checkpoint is w/{name}.pth, continue '
        f'with: {command} --work-dir w --launcher pytorch --resume'
    )


FEW = [('batch', 1), ('gathering', 0)]
# Of validations the first process saves, if it is not the one that died
NAMES = {
    ('validation', 0): 'epoch_2',
    ('gathering', 0): 'epoch_2',
    ('validation', 1): 'interrupted',
    ('gathering', 1): 'interrupted',
}


@pytest.mark.parametrize(
    ('place', 'rank'),
    [
        pytest.param(place, rank, marks=() if (place, rank) in FEW else pytest.mark.slow)
        for place in PLACES
        for rank in (0, 1)
        if (place, rank) != ('saving', 1)  # only the first process saves
    ],
)
def test_a_killed_process_ends_the_other_one(place, rank, tmp_path):
    codes, said, seconds = train(tmp_path, rank, place)
    print(f'{place}, rank {rank}: {seconds:.1f} s with the start and the first epoch')
    assert (codes[rank], codes[1 - rank]) == (-9, 2)
    if place == 'start':
        assert said == ['error: another process has ended before the start']
    elif place == 'beside saving':  # which may be done by then
        assert said in [[lost(tmp_path, 'has ended', f'epoch_{n}')] for n in (1, 2)]
    else:
        assert said == [lost(tmp_path, 'has ended', NAMES.get((place, rank), 'epoch_1'))]
    assert seconds < 60


@pytest.mark.parametrize(
    ('place', 'line'),
    [
        ('start', 'error: another process has ended (process 1: {word}) before the start'),
        ('batch', lost('{folder}', 'has ended (process 1: {word})', 'epoch_1')),
    ],
)
def test_the_first_process_tells_why_another_one_failed(place, line, tmp_path):
    codes, said, _ = train(tmp_path, 1, place, number=0)
    assert said == [line.format(word='a fault of this process', folder=tmp_path)]
    assert codes == [2, 1 if place == 'batch' else 2]  # a crash has its traceback


@pytest.mark.slow
def test_a_process_that_hangs_is_not_waited_for_for_ever(tmp_path):
    more = 'env_cfg = dict(dist_cfg=dict(timeout=5))'
    codes, said, _ = train(tmp_path, 1, 'batch', signal.SIGSTOP, more)
    assert said == [lost(tmp_path, 'does not answer', 'epoch_1')]
    assert codes == [2, None]


def test_an_error_of_all_processes_is_one_line(tmp_path):
    text = KILL.format(place='start', rank=0, number=0)
    config = write_toy_config(tmp_path, 'toy', more=text + 'custom_hooks[0].update(wrong=1)')
    pair = TwoProcesses(tmp_path, config, '--work-dir', 'w')
    assert pair.wait(100) == [2, 2]
    assert len(pair.said(0)) == 1
    assert pair.said(1) == []


@MODELS.register_module()
class BadInOneProcess(ToyModel):
    """A loss of infinity in one process, from the fourth batch on."""

    def __init__(self, rank):
        super().__init__()
        self.rank, self.batches = rank, 0

    def forward(self, inputs, paths, mode='tensor'):
        found = super().forward(inputs, paths, mode)
        self.batches += mode == 'loss'
        bad = mode == 'loss' and get_rank() == self.rank and self.batches > 3
        return dict(loss=found['loss'] / 0) if bad else found


@pytest.mark.parametrize('rank', [0, 1])
def test_a_gradient_of_one_process_that_is_not_finite_stops_both(rank, tmp_path):
    more = f"model = dict(type='BadInOneProcess', rank={rank})"
    config = write_toy_config(tmp_path, 'toy', more=more)
    pair = TwoProcesses(tmp_path, config, '--work-dir', 'w')
    assert pair.wait(100) == [2, 2]
    (line,) = pair.said(rank)
    assert line.startswith('error: iteration 4: loss is inf; first output')
    file = f'non_finite_iter_4{"_rank_1" * rank}.pth'
    assert line.endswith(f'to run it again: w/{file} with --replay')
    assert [path.name for path in (tmp_path / 'w').glob('non_finite*')] == [file]
    other = (
        'error: iteration 4: gradients are not finite, but those of this process are: another one '
        'has a report'
    )
    assert pair.said(1 - rank) == [other] * rank  # only the first process prints it
