"""The line at the start of a training, and the progress of its validations."""

import re

import pytest
from toy_task import write_toy_config

from vit_backbones.training.progress_hook import ProgressHook
from vit_backbones.training.record_hook import device_name


def lines(capsys, what):
    """Lines of the terminal that hold a text, without their time."""
    out = capsys.readouterr().out.splitlines()
    return [re.sub(r'^[\d:]+ ', '', line) for line in out if what in line]


def test_a_training_says_what_it_is(train, tmp_path, capsys):
    assert train([write_toy_config(tmp_path, 'toy')]) == 0
    expected = (
        f'training ToyModel: 2 parameters, all trained; 6 images in batches of 2; '
        f'3 epochs, 9 iterations; {device_name()}'
    )
    assert lines(capsys, 'training ToyModel') == [expected]


def test_a_training_by_iterations(train, tmp_path, capsys):
    more = (
        "train_cfg = dict(type='IterBasedTrainLoop', max_iters=4, val_interval=4)\n"
        "train_dataloader['sampler']['type'] = 'InfiniteSampler'"
    )
    assert train([write_toy_config(tmp_path, 'iters', more=more)]) == 0
    (line,) = lines(capsys, 'training ToyModel')
    assert '; 6 images in batches of 2; 4 iterations; ' in line


def test_a_validation_shows_progress_from_its_first_batch(train, tmp_path, capsys):
    config = write_toy_config(tmp_path, 'first')
    options = ['train_cfg.max_epochs=1', 'default_hooks.logger.interval=50']
    assert train([config, '--cfg-options', *options]) == 0
    shown = [line.split()[1] for line in lines(capsys, 'Epoch(val)')]
    assert shown == ['[1][1/3]', '[1][3/3]']  # the last is MMEngine's, with the metrics


def test_no_batch_is_logged_twice_and_none_is_late(train, tmp_path, capsys):
    config = write_toy_config(tmp_path, 'often')
    options = ['train_cfg.max_epochs=1', 'default_hooks.progress.seconds=0']
    assert train([config, '--cfg-options', *options]) == 0
    shown = [line.split()[1] for line in lines(capsys, 'Epoch(val)')]
    assert shown == ['[1][1/3]', '[1][2/3]', '[1][3/3]', '[1][3/3]']


def test_a_test_shows_progress_too(train, evaluate, tmp_path, capsys):
    config = write_toy_config(tmp_path, 'tested')
    assert train([config, '--cfg-options', 'train_cfg.max_epochs=1']) == 0
    capsys.readouterr()
    assert evaluate([config, 'work_dirs/tested/epoch_1.pth']) == 0
    assert next(line.split()[1] for line in lines(capsys, 'Epoch(test)')) == '[1/3]'


@pytest.mark.parametrize('seconds', [-1, float('nan'), 'often'])
def test_seconds_out_of_range(seconds):
    with pytest.raises(ValueError, match=r'seconds must be a number from 0'):
        ProgressHook(seconds=seconds)
