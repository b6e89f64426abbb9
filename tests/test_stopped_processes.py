"""A signal to one of two processes, or to both: all stop, and a resume is exact."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY
from kill_hook import PLACES
from toy_task import write_toy_config
from two_processes import TwoProcesses

# Two iterations an epoch in two processes: epochs end between steps
MORE = """
custom_imports['imports'].append('kill_hook')
custom_hooks = [dict(type='EMAHook', momentum=0.3)]
optim_wrapper['accumulative_counts'] = 3
default_hooks['checkpoint'].update(save_best=None, rule=None)
del default_hooks['curves']
"""
SIGNALS = """
custom_hooks += [
    dict(type='KillHook', rank=r, place={place!r}, number={number}, to={to!r}) for r in {ranks}
]
"""
FSDP = """
runner_type = 'FlexibleRunner'
strategy = dict(type='ViTFSDPStrategy')
custom_hooks = []  # MMEngine's averages know no shards
optim_wrapper['accumulative_counts'] = 2
"""


def train(folder, name, *options, more=''):
    """Exit codes, and what both processes said."""
    config = write_toy_config(folder, name, more=MORE + more)
    pair = TwoProcesses(folder, config, '--work-dir', 'w', *options)
    return pair.wait(100), pair.said(0), pair.said(1)


def saved(folder, name='epoch_3.pth'):
    return torch.load(folder / 'w' / name, weights_only=True)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The last checkpoint of an undisturbed training in two processes."""
    folder = tmp_path_factory.mktemp('whole')
    assert train(folder, 'toy')[0] == [0, 0]
    return saved(folder)


def assert_same(folder, whole):
    last = saved(folder)
    for section in ('state_dict', 'ema_state_dict'):
        torch.testing.assert_close(last[section], whole[section], rtol=0, atol=0)
    assert last['message_hub']['log_scalars'].keys() == whole['message_hub']['log_scalars'].keys()
    losses = [each['message_hub']['log_scalars']['train/loss'].data[0] for each in (last, whole)]
    assert losses[0].tolist() == losses[1].tolist()


FEW = [('batch', (0, 1))]


@pytest.mark.parametrize(
    ('place', 'ranks'),
    [
        pytest.param(place, ranks, marks=() if (place, ranks) in FEW else pytest.mark.slow)
        for place in PLACES
        for ranks in ((0,), (1,), (0, 1))
        if place != 'start' and (place, ranks) != ('saving', (1,))
    ],
)
def test_all_stop_and_a_resume_is_exact(place, ranks, whole, tmp_path):
    given = SIGNALS.format(place=place, ranks=ranks, number=int(signal.SIGTERM), to='self')
    codes, first, second = train(tmp_path, 'stopped', more=given)
    print(place, ranks, codes, first[-1][:60], second)
    alone = place == 'validation' and len(ranks) == 1  # where they do not wait for each other
    assert codes == ([143 if rank in ranks else 2 for rank in (0, 1)] if alone else [143, 143])
    ends = r'(interrupted|error: another process has ended( \(process 1: interrupted\))?)'
    for said in (first[-1:], second):
        assert all(re.match(f'{ends}; the last checkpoint is w/interrupted.pth', e) for e in said)
    assert len(second) == (alone and ranks == (0,))
    assert train(tmp_path, 'rest', '--resume')[0] == [0, 0]
    assert_same(tmp_path, whole)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize('ranks', [(0,), (1,), (0, 1)])
@pytest.mark.parametrize('place', ['first batch', 'validation', 'gathering'])
def test_shards_stop_together(place, ranks, tmp_path):
    (tmp_path / 'whole').mkdir()
    assert train(tmp_path / 'whole', 'toy', more=FSDP)[0] == [0, 0]
    given = SIGNALS.format(place=place, ranks=ranks, number=int(signal.SIGTERM), to='self')
    codes, first, second = train(tmp_path, 'stopped', more=FSDP + given)
    print(place, ranks, codes, first, second)
    assert codes == [143, 143]
    assert first[-1].startswith('interrupted; the last checkpoint is w/interrupted.pth')
    assert train(tmp_path, 'rest', '--resume', more=FSDP)[0] == [0, 0]
    last, expected = saved(tmp_path), saved(tmp_path / 'whole')
    torch.testing.assert_close(last['state_dict'], expected['state_dict'], rtol=1e-6, atol=1e-6)


def with_agent(folder, *options, more=''):
    """A training by `torchrun`: it has ended, with all that its processes wrote."""
    config = write_toy_config(folder, 'toy', more=MORE + more)
    launcher = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2']
    launcher += ['--max-restarts=1', REPOSITORY / 'tools/train.py', config, '--work-dir', 'w']
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / 'tests')])
    given = dict(OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='-1', PYTHONPATH=paths)
    return subprocess.run(
        [sys.executable, *launcher, '--launcher', 'pytorch', *options],
        cwd=folder,
        env=os.environ | given,
        capture_output=True,
        text=True,
        timeout=300,
    )


def processes_in(folder):
    """Command lines of the processes that know a folder."""
    found = []
    for path in Path('/proc').glob('[0-9]*/cmdline'):
        try:
            found.append(path.read_bytes().replace(b'\0', b' ').decode())
        except OSError:  # it has ended
            pass
    return [line for line in found if str(folder) in line]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_torchrun(number, whole, tmp_path):
    given = SIGNALS.format(place='batch', ranks=(0,), number=int(number), to='parent')
    stopped = with_agent(tmp_path, more=given)
    time.sleep(1)
    assert processes_in(tmp_path) == []
    assert stopped.returncode == 1  # torchrun's own
    lines = [line for line in stopped.stderr.splitlines() if line.startswith(('stopp', 'interr'))]
    assert lines[0] == 'stopping: this iteration ends and is saved first; once more stops at once'
    assert len(lines) == 2
    assert 'the last checkpoint is w/interrupted.pth' in lines[1]
    assert train(tmp_path, 'rest', '--resume')[0] == [0, 0]
    assert_same(tmp_path, whole)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize('place', ['batch', 'validation'])
def test_torchrun_starts_anew_and_goes_on(place, whole, tmp_path):
    given = SIGNALS.format(place=place, ranks=(1,), number=int(signal.SIGKILL), to='self')
    done = with_agent(tmp_path, '--resume', more=given)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('nothing to resume in w: training starts anew') == 1
    assert done.stdout.count('resuming from w/') == done.stdout.count('done: ') == 1
    assert_same(tmp_path, whole)
