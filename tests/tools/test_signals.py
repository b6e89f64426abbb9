"""Ctrl-C and SIGTERM from outside: what each tool says, and which processes are left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY
from toy_task import write_toy_config
from trained_models import write_images

ENV = os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(REPOSITORY / 'tests')}


def start(tool, *arguments, folder):
    """A tool in a group of processes of its own."""
    command = [sys.executable, str(REPOSITORY / f'tools/{tool}.py'), *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=ENV,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def group(process):
    """Numbers of the processes of its group that still run."""
    found = []
    for stat in Path('/proc').glob('[0-9]*/stat'):
        try:
            fields = stat.read_text().rpartition(')')[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[2]) == process.pid and fields[0] != 'Z':
            found.append(int(stat.parent.name))
    return found


def assert_none_is_left(process, seconds=10):
    until = time.monotonic() + seconds
    while left := group(process):
        assert time.monotonic() < until, left
        time.sleep(0.1)


def wait_until_it_trains(process, work_dir):
    until = time.monotonic() + 120
    while not any(work_dir.glob('iter_*.pth')):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)


WORKERS = """
train_dataloader.update(num_workers=2, persistent_workers=True)
val_dataloader.update(num_workers=1, persistent_workers=True)
train_dataloader['sampler']['type'] = 'InfiniteSampler'
train_cfg = dict(type='IterBasedTrainLoop', max_iters=100_000, val_interval=100_000)
param_scheduler = None
default_hooks['checkpoint'].update(by_epoch=False, interval=300, max_keep_ckpts=1)
# more than a pipe holds: a worker waits there for a training that is gone
train_dataloader['dataset']['pipeline'][-1]['more'] = 300_000
"""


@pytest.mark.skipif(not Path('/proc').is_dir(), reason='looks at processes in /proc')
@pytest.mark.parametrize(
    'number', [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM]
)
def test_workers_get_the_signal_too__and_none_is_left(number, tmp_path):
    """A terminal sends Ctrl-C to all processes, a cluster SIGTERM."""
    config = write_toy_config(tmp_path, 'toy', more=WORKERS)
    process = start('train', config, '--work-dir', 'w', folder=tmp_path)
    wait_until_it_trains(process, tmp_path / 'w')
    assert len(group(process)) >= 3
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert err.splitlines()[-1].startswith(
        'interrupted; the last checkpoint is w/interrupted.pth, continue with: '
    )
    assert 'Traceback' not in err
    assert_none_is_left(process)


@pytest.mark.skipif(not Path('/proc').is_dir(), reason='looks at processes in /proc')
@pytest.mark.parametrize(
    'number', [pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGKILL, signal.SIGTERM)]
)
def test_a_lone_signal_leaves_no_worker(number, tmp_path):
    config = write_toy_config(tmp_path, 'toy', more=WORKERS)
    process = start('train', config, '--work-dir', 'w', folder=tmp_path)
    wait_until_it_trains(process, tmp_path / 'w')
    process.send_signal(number)
    process.wait(timeout=60)
    assert process.returncode == (143 if number == signal.SIGTERM else -9)
    assert_none_is_left(process)


STARTS = {
    'train': ['toy.py'],
    'test': ['toy.py', 'none.pth'],
    'predict': ['toy.py', 'none.pth', 'images', '--out', 'o'],
    'check_config': ['toy.py'],
    'analyze': ['w'],
    'extract_features': [
        'images',
        '--model',
        'test_vit',
        '--random-weights',
        '0',
        '--out',
        'f.npz',
    ],
    'visualize': ['images', '--model', 'test_vit', '--random-weights', '0', '--out', 'o'],
    'benchmark': ['speed', 'test_vit'],
    'export_onnx': ['--model', 'test_vit', '--random-weights', '0', '--out', 'o.onnx'],
    'convert_checkpoint': ['a.pth', 'b.safetensors', '--model', 'test_vit'],
    'distill': ['test_vit=a.pth', 'test_vit', 'images', '--scratch', '--out', 'o'],
    'check_models': [],
}


def assert_stops(tool, number, seconds, folder):
    process = start(tool, *STARTS[tool], folder=folder)
    time.sleep(seconds)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=30)
    if process.returncode in (0, 1, 2) and 'interrupted' not in err:
        return False  # it had ended before
    assert process.returncode == 128 + number, (tool, seconds, process.returncode, err)
    assert err.splitlines()[-1].startswith('interrupted'), (tool, seconds, err)
    assert 'Traceback' not in out + err, (tool, seconds, err)
    assert_none_is_left(process)
    return True


def test_ctrl_c_while_torch_is_imported_is_not_swallowed(tmp_path):
    write_toy_config(tmp_path, 'toy')
    assert assert_stops('train', signal.SIGINT, 1.0, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_each_tool_stops_at_any_time_of_its_start(tmp_path):
    write_toy_config(tmp_path, 'toy')
    write_images(tmp_path / 'images')
    stops = 0
    for tool in STARTS:
        for number in (signal.SIGINT, signal.SIGTERM):
            for seconds in (0.5, 2, 5):
                stops += assert_stops(tool, number, seconds, tmp_path)
    print(f'{stops} of {len(STARTS) * 6} stopped by the signal, the others had ended')
    assert stops > len(STARTS) * 3
