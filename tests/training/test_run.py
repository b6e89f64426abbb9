"""Training and testing from Python: results and errors instead of lines and exit codes."""

from pathlib import Path

import pytest
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS
from toy_task import write_toy_config

from vit_backbones.config.loading import load_config
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


def test_ctrl_c_names_no_checkpoint_of_an_earlier_training(folder):
    """To resume it would go on with that one, or end at once."""
    train(write_toy_config(folder, 'first'), work_dir='w')
    stop = "custom_hooks = [dict(type='ToyStopHook', epoch=0)]"
    with pytest.raises(KeyboardInterrupt) as stopped:
        train(write_toy_config(folder, 'second', more=stop), work_dir='w')
    assert str(stopped.value) == (
        'interrupted; there is no checkpoint yet: start again with the same command'
    )


def test_the_command_to_resume_sets_what_the_config_reads(folder, monkeypatch):
    """`CAMVID_ROOT=... python tools/train.py CONFIG` sets it for this one command."""
    monkeypatch.setenv('TOY_ROOT', 'my data')
    more = "custom_hooks = [dict(type='ToyStopHook', epoch=1)]\nroot = '{{$TOY_ROOT:data}}'"
    more += "\nother = '{{$TOY_OTHER:data}}'"
    line = r"continue with: TOY_ROOT='my data' python tools/train\.py a\.py --resume$"
    with pytest.raises(KeyboardInterrupt, match=line):
        train(
            write_toy_config(folder, 'stopped', more=more),
            command='python tools/train.py a.py --resume',
        )


@pytest.mark.parametrize(('seconds', 'text'), [(5, '5 s'), (65, '1 min 5 s'), (7300, '2 h 1 min')])
def test_a_result_is_one_line(seconds, text, folder):
    finished = Finished('mIoU 40.0 %', {}, seconds, str(folder / 'w'))
    assert str(finished) == f'mIoU 40.0 % · {text} · w'


def test_warnings_of_the_checks_are_logged(folder):
    train(write_toy_config(folder, 'warned', more='optim_wraper = dict()'))
    (log,) = folder.glob('work_dirs/warned/*/*.log')
    assert "WARNING - 'optim_wraper' is not" in log.read_text()


SCHEDULES = Path(__file__).parents[2] / 'configs/_base_/schedules'


RATES = []


@HOOKS.register_module()
class RatesHook(Hook):
    """Keeps the learning rate of each iteration."""

    def before_train(self, runner):
        RATES.clear()

    def before_train_iter(self, runner, **kwargs):
        RATES.append(runner.optim_wrapper.get_lr()['lr'][0])


def trained_rates(folder, schedule, *options):
    """Rates, of 0.05 without schedules, and warnings of a training: 3 iterations an epoch."""
    more = "custom_hooks = [dict(type='RatesHook')]\n" + schedule
    name = f'rates_{folder.name}'  # MMEngine keeps the log of a name in the same second
    train(write_toy_config(folder, name, more=more), options=options)
    log = max(folder.glob(f'work_dirs/{name}/*/*.log'), key=lambda path: path.stat().st_mtime_ns)
    lines = [line for line in log.read_text().splitlines() if 'param_scheduler' in line]
    return RATES, [line.split(' - ')[-1] for line in lines if ' WARNING - ' in line]


@pytest.mark.parametrize(
    ('name', 'epochs', 'rates'),
    [
        # no warm-up of one iteration
        ('adamw_cosine_10e', 1, [0.05, 0.05, 0.025]),
        ('adamw_cosine_10e', 2, [0.0005, 0.02525, 0.05, 0.05, 0.0375, 0.0125]),
        ('adamw_cosine_4e', 1, [0.05, 0.0375, 0.0125]),
        ('adamw_cosine_4e', 2, [0.0005, 0.02356, 0.0375, 0.025, 0.0125, 0.00335]),
    ],
)
def test_schedules_of_recipes_follow_the_epochs(name, epochs, rates, folder):
    schedule = f'param_scheduler = {load_config(SCHEDULES / f"{name}.py").param_scheduler}'
    found, lines = trained_rates(folder, schedule, f'train_cfg.max_epochs={epochs}')
    assert found == pytest.approx(rates, abs=1e-5)
    assert len(lines) == (name.endswith('4e') or epochs == 1)


def test_schedules_follow_the_iterations(folder):
    iters = "train_cfg = dict(type='IterBasedTrainLoop', max_iters=40)\n"
    schedule = load_config(SCHEDULES.parents[1] / 'linear_probe/linear_vit-b-dinov2_ade20k.py')
    more = f'{iters}param_scheduler = {schedule.param_scheduler}'
    found, (line,) = trained_rates(folder, more, 'train_cfg.max_iters=6')
    assert found == pytest.approx([5e-8, 0.025, 0.05, 0.05, 0.025, 0.0], abs=1e-5)
    assert line == (
        'param_scheduler.0 (LinearLR) warms up until iteration 1500, and the training ends no '
        'later (train_cfg.max_iters=6): it is shortened to half of the training'
    )


def test_a_schedule_that_begins_too_late_is_refused_with_its_name(folder):
    more = "param_scheduler = [dict(type='CosineAnnealingLR', begin=4)]"
    config = write_toy_config(folder, 'late', more=more)
    line = (
        r'^param_scheduler\.0 \(CosineAnnealingLR\) begins at epoch 4, when the training has ended '
        r'\(train_cfg\.max_epochs=3\): set its begin lower, or train longer$'
    )
    with pytest.raises(ValueError, match=line):
        train(config)
    assert not Path('work_dirs/late').exists()


def test_a_resumed_schedule_of_another_length_is_not_silent(folder):
    """MMEngine takes `end` from the checkpoint: three more iterations at a rate of nothing."""
    schedule = "param_scheduler = dict(type='CosineAnnealingLR', convert_to_iter_based=True)"
    config = write_toy_config(folder, 'longer', more=schedule)
    train(config, options=['train_cfg.max_epochs=1'])
    train(config, options=['train_cfg.max_epochs=2'], resume='auto')
    log = max(folder.glob('work_dirs/longer/*/*.log'), key=lambda path: path.stat().st_mtime_ns)
    line = (
        'WARNING - CosineAnnealingLR of the checkpoint ends at step 3, and with the config it '
        'would at 6: it goes on as it was, and the rate does not follow the length of the training'
    )
    assert line in log.read_text()


def test_a_head_that_would_not_learn_gets_its_turn(folder, monkeypatch):
    """`auxiliary_iters` beyond the training become a quarter of it."""
    ToyModel = MODELS.get('ToyModel')
    monkeypatch.setattr(ToyModel, 'auxiliary_iters', 300, raising=False)
    train(write_toy_config(folder, 'headless'), options=['find_unused_parameters=True'])
    log = max(folder.glob('work_dirs/headless/*/*.log'), key=lambda path: path.stat().st_mtime_ns)
    assert (
        'WARNING - model.auxiliary_iters=300: the training is no longer (train_cfg.max_epochs=3, 9 '
        'iterations), and its head would not learn; it is shortened to 2'
    ) in log.read_text()
