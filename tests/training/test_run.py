"""Training and testing from Python: results and errors instead of lines and exit codes."""

import pytest
from toy_task import write_toy_config

from vit_backbones.training.outcome import Finished
from vit_backbones.training.run import evaluate, train


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_results_are_returned_and_nothing_is_printed_beside_the_log(folder, capsys):
    lines = []
    config = write_toy_config(folder, 'toy')
    finished = train(config, resume='auto', say=lines.append)
    assert lines == ['nothing to resume in work_dirs/toy: training starts anew']
    assert finished.result.startswith('mIoU 40.0 %')
    assert finished.metrics['toy/mIoU'] == 40.0
    assert str(finished).endswith(' · work_dirs/toy')
    tested = evaluate(config, 'work_dirs/toy/epoch_3.pth')
    assert (tested.result, tested.metrics['toy/mIoU']) == ('mIoU 30.0 %', 30.0)
    assert 'done' not in capsys.readouterr().out


def test_what_prevents_a_start_is_raised(folder):
    with pytest.raises(FileNotFoundError, match=r'gone\.py'):
        train('gone.py')
    with pytest.raises(ValueError, match="'NoSuchModel' is not in the"):
        train(write_toy_config(folder, 'wrong', more="model = dict(type='NoSuchModel')"))


@pytest.mark.parametrize(
    ('name', 'value', 'allowed'),
    [
        ('sanity_check', 'no', 'True or False'),
        ('amp', 1, 'True or False'),
        ('deterministic', None, 'True or False'),
        ('resume', True, "a checkpoint file or 'auto'"),
    ],
)
def test_a_value_that_would_be_guessed_is_refused(name, value, allowed, folder):
    with pytest.raises(ValueError, match=f'^{name} must be {allowed}, got {value!r}$'):
        train(write_toy_config(folder), **{name: value})


def test_ctrl_c_names_the_last_checkpoint(folder):
    stop = "custom_hooks = [dict(type='ToyStopHook', epoch=1)]"
    config = write_toy_config(folder, 'stopped', more=stop)
    line = r'^interrupted; the last checkpoint is work_dirs/stopped/epoch_1\.pth$'
    with pytest.raises(KeyboardInterrupt, match=line):
        train(config)


@pytest.mark.parametrize(('seconds', 'text'), [(5, '5 s'), (65, '1 min 5 s'), (7300, '2 h 1 min')])
def test_a_result_is_one_line(seconds, text, folder):
    finished = Finished('mIoU 40.0 %', {}, seconds, str(folder / 'w'))
    assert str(finished) == f'mIoU 40.0 % · {text} · w'


def test_warnings_of_the_checks_are_logged(folder):
    train(write_toy_config(folder, 'warned', more='optim_wraper = dict()'))
    (log,) = folder.glob('work_dirs/warned/*/*.log')
    assert "WARNING - 'optim_wraper' is not" in log.read_text()
