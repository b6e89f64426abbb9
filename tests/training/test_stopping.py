"""Ctrl-C and SIGTERM save first; the training then goes on as if it had never stopped."""

import contextlib
import errno
import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, load_tool
from mmcv.transforms import BaseTransform
from mmengine.fileio import LocalBackend
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, TRANSFORMS
from toy_task import write_toy_config

main = load_tool('train').main


@HOOKS.register_module()
class SignalHook(Hook):
    """Sends signals to this process at a batch of a mode."""

    def __init__(self, mode, epoch, batch, numbers):
        self.mode, self.at, self.numbers = mode, (epoch, batch), numbers

    def _after_iter(self, runner, batch_idx, *args, mode='train', **kwargs):
        if mode == self.mode and (runner.epoch, batch_idx) == self.at:
            for number in self.numbers:
                os.kill(os.getpid(), number)


@TRANSFORMS.register_module()
class Noise(BaseTransform):
    """An augmentation that draws from each generator."""

    def transform(self, results):
        import random

        import numpy as np

        drawn = random.random() + np.random.rand() + float(torch.rand(()))
        results['img'] = (results['img'] * (drawn / 3)).astype(np.uint8)
        return results


MORE = """
custom_imports = dict(imports=['toy_task'])
train_dataloader['dataset']['pipeline'].insert(1, dict(type='Noise'))
custom_hooks = [dict(type='EMAHook', momentum=0.3)]
optim_wrapper['accumulative_counts'] = 2
default_hooks['checkpoint'].update(save_best=None, rule=None)
del default_hooks['curves']  # it keeps the validations
"""


def load(path):
    return torch.load(path, weights_only=True)  # the package allows MMEngine's own types


def run(folder, name, *options, more='', code=0):
    config = write_toy_config(folder, name, more=MORE + more)
    assert main([config, '--work-dir', 'w', *options]) == code


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The work dir of an undisturbed training."""
    folder = tmp_path_factory.mktemp('whole')
    with contextlib.chdir(folder):
        run(folder, 'whole')
    return folder / 'w'


def assert_same(one, two='w'):
    for section in ('state_dict', 'ema_state_dict'):
        for key, value in load(f'{one}/epoch_3.pth')[section].items():
            assert torch.equal(load(f'{two}/epoch_3.pth')[section][key], value), key
    records = [json.loads(Path(each, 'record.json').read_text()) for each in (one, two)]
    assert records[0].keys() == records[1].keys()
    # the toy's metric counts its own evaluations
    epochs = [[entry['epoch'] for entry in record['validations']] for record in records]
    assert epochs[0] == epochs[1] == [1, 2, 3]


@pytest.mark.parametrize(
    ('mode', 'epoch', 'batch', 'number', 'saved'),
    [
        ('train', 0, 0, signal.SIGINT, (0, 1)),
        ('train', 1, 1, signal.SIGTERM, (1, 5)),
        # the last batch of an epoch, and of the training
        pytest.param('train', 1, 2, signal.SIGINT, (2, 6), marks=pytest.mark.slow),
        pytest.param('train', 2, 2, signal.SIGTERM, (3, 9), marks=pytest.mark.slow),
        ('val', 2, 0, signal.SIGTERM, (2, 6)),  # after two epochs
    ],
)
def test_it_saves_and_goes_on_exactly(
    mode, epoch, batch, number, saved, whole, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    hook = f"custom_hooks.append(dict(type='SignalHook', mode={mode!r}, epoch={epoch}, "
    hook += f'batch={batch}, numbers=[{int(number)}]))'
    capsys.readouterr()
    run(tmp_path, 'stopped', more=hook, code=128 + number)
    line = re.escape(
        f'interrupted; the last checkpoint is w/interrupted.pth, continue with: {sys.executable} '
        f'{REPOSITORY}/tools/train.py {tmp_path}/stopped.py --work-dir w --resume'
    )
    assert re.fullmatch(line + '\n', capsys.readouterr().err)
    meta = load('w/interrupted.pth')['meta']
    assert (meta['epoch'], meta['iter']) == saved
    run(tmp_path, 'rest', '--resume')
    assert_same(whole)
    assert Path('w/interrupted.pth').exists() == (saved == (3, 9))


def test_a_second_one_stops_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    hook = "custom_hooks.append(dict(type='SignalHook', mode='train', epoch=1, batch=0, "
    run(tmp_path, 'twice', more=hook + 'numbers=[2, 2]))', code=130)
    assert 'the last checkpoint is w/epoch_1.pth, continue' in capsys.readouterr().err
    assert not Path('w/interrupted.pth').exists()


def test_a_full_disk_keeps_the_last_good_checkpoint(whole, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    put = LocalBackend.put

    def full(self, content, path):
        if 'epoch_2' in str(path):
            Path(path).write_bytes(content[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put(self, content, path)

    monkeypatch.setattr(LocalBackend, 'put', full)
    run(tmp_path, 'full', code=2, more="default_hooks['checkpoint'].update(max_keep_ckpts=1)")
    assert re.fullmatch(
        r'error: No space left on device: w; the last checkpoint is w/epoch_1\.pth, continue with: '
        r'.* --resume\n',
        capsys.readouterr().err,
    )
    assert [each.name for each in Path('w').glob('*.pth*')] == ['epoch_1.pth']
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    run(tmp_path, 'freed', '--resume')
    assert_same(whole)
