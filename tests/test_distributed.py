"""Two processes train as one does with the same images a step; on the CPU, so without a GPU too."""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from two_processes import FSDP, SEGMENTER

from vit_backbones.checkpoints.fitting import RECORDS
from vit_backbones.training.run import evaluate

ROOT = Path(__file__).parents[1]


def run(folder, *arguments, number=2, gpus='-1'):
    """What a training of the config in a folder prints, by default without a GPU."""
    command = [str(ROOT / 'tools/train.py'), 'toy.py', *arguments]
    if number:
        launcher = ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={number}']
        command = [*launcher, *command, '--launcher', 'pytorch']
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=os.environ | {'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': gpus},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def write_config(folder, batch, more=''):
    base = str(ROOT / 'configs/upernet_vit.py')
    (folder / 'toy.py').write_text(SEGMENTER.format(base=base, batch=batch) + more)


def weights(folder):
    return torch.load(folder / 'work_dirs/toy/epoch_2.pth')['state_dict']


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    """Weights of one process, and its result."""
    folder = tmp_path_factory.mktemp('one')
    write_config(folder, 2)
    said = run(folder, number=None)
    return weights(folder), re.search('done: (mIoU .* %) ', said)[1]


def assert_same(got, expected):
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.timeout(300)
def test_two_processes_train_as_one(alone, tmp_path):
    expected, result = alone
    write_config(tmp_path, 1)
    said = run(tmp_path)
    assert_same(weights(tmp_path), expected)
    assert said.count('done: ') == said.count(f'done: {result} · ') == 1


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_shards_train_as_the_whole__and_resume(alone, tmp_path):
    expected, result = alone
    write_config(tmp_path, 1, FSDP)
    run(tmp_path, '--cfg-options', 'train_cfg.max_epochs=1')
    said = run(tmp_path, '--resume')
    assert 'resuming from work_dirs/toy/epoch_1.pth' in said
    assert_same(weights(tmp_path), expected)
    record = json.loads((tmp_path / 'work_dirs/toy/record.json').read_text())
    sizes = {name: value.numel() for name, value in expected.items()}
    for buffer in RECORDS:
        sizes.pop(f'backbone.{buffer}', None)
    assert record['parameters'] == sum(sizes.values())
    assert said.splitlines()[-1].startswith(f'done: {result} · ')
    # A whole checkpoint, which one process can read
    with contextlib.chdir(tmp_path):
        tested = evaluate('toy.py', 'work_dirs/toy/epoch_2.pth').metrics
    assert tested['mIoU'] == pytest.approx(float(result.split()[1]), abs=0.06)  # on a GPU too


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
@pytest.mark.timeout(300)
def test_shards_train_on_gpus(alone, tmp_path):
    expected, _ = alone
    number = min(2, torch.cuda.device_count())
    write_config(tmp_path, 2 // number, FSDP)
    run(tmp_path, number=number, gpus=','.join(map(str, range(number))))
    for name, value in weights(tmp_path).items():
        torch.testing.assert_close(value.cpu(), expected[name], rtol=0.02, atol=2e-3, msg=name)
