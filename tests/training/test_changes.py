"""Arguments of a training that change its config: length, rate, average, patience, a trial."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from conftest import REPOSITORY
from mmengine.config import Config
from mmengine.logging import MessageHub
from toy_task import write_toy_config

from vit_backbones.config.loading import load_config
from vit_backbones.errors import counted
from vit_backbones.training.changes import average_weights, stop_early
from vit_backbones.training.length import set_epochs
from vit_backbones.training.patience_hook import PatienceHook

RECIPES = sorted(p for p in (REPOSITORY / 'configs').glob('*/*.py') if p.parent.name != '_base_')
IMAGES = 7


def config(tmp_path, epochs=None, **options):
    """A config by epochs, or by iterations on seven images in batches of two."""
    text = write_toy_config(tmp_path, 'toy')
    cfg = Config.fromfile(text)
    cfg.merge_from_dict(options)
    if epochs is None:
        cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=40, val_interval=10)
        cfg.train_dataloader.dataset['indices'] = list(range(IMAGES - 3))
    return cfg


@pytest.mark.parametrize(
    ('schedule', 'scaled'),
    [
        (dict(by_epoch=False, end=500), dict(by_epoch=False, end=2083)),
        (dict(milestones=[8, 11], end=12), dict(milestones=[33, 46], end=50)),
        (dict(T_max=12, end=12, convert_to_iter_based=True), dict(T_max=50.0, end=50.0)),
        (dict(begin=0.5, convert_to_iter_based=True), dict(begin=0.5 * 50 / 12)),
        (dict(begin=0, end=1), dict(begin=0, end=4)),
        (dict(periods=(4, 8), step_size=3), dict(periods=(17, 33), step_size=12)),
        (dict(warmup=(500, 1000), by_epoch=False), dict(warmup=(2083, 4167))),
        (dict(gamma=0.1, factor=0.3), dict(gamma=0.1, factor=0.3)),
        # MMEngine multiplies these by the length of an epoch, and a part of a step never comes
        (
            dict(milestones=[8, 11], step_size=1, convert_to_iter_based=True),
            dict(milestones=[33, 46], step_size=4),
        ),
        (
            dict(periods=[3, 3, 3, 3], total_steps=12, convert_to_iter_based=True),
            dict(periods=[12, 13, 13, 12], total_steps=50),
        ),
    ],
)
def test_schedules_follow_the_epochs(schedule, scaled):
    cfg = Config(dict(train_cfg=dict(max_epochs=12), param_scheduler=[schedule]))
    line = set_epochs(cfg, 50)
    assert cfg.train_cfg.max_epochs == 50
    assert cfg.param_scheduler[0] == {**schedule, **scaled}
    told = '; schedules scaled by 4.17' if schedule.keys() - {'gamma', 'factor'} else ''
    assert line == f'length: 50 epochs{told}'


LAST = dict(type='ConstantLR', factor=0.1, begin=11, end=12)
GONE = '; param_scheduler.1 (ConstantLR) would have no step, and is left out'
WARM = dict(type='LinearLR', end=1)


@pytest.mark.parametrize(
    ('schedules', 'kept', 'told'),
    [
        ([WARM, LAST], [WARM], GONE),
        ([WARM, dict(type='ConstantLR', begin=9, end=12)], [WARM], GONE),
        ([WARM, dict(type='ConstantLR', begin=11)], [WARM], GONE),
        ([WARM, dict(LAST, begin=0)], [WARM, dict(LAST, begin=0, end=1)], ''),
        ([WARM, dict(LAST, begin=1)], [WARM, dict(LAST, begin=1, end=1)], ''),  # `fitted` mends it
        (dict(a=[WARM, LAST]), dict(a=[WARM]), GONE.replace('scheduler.1', 'scheduler.a.1')),
        # An error of the config, which the checks name
        ([WARM, dict(LAST, end=11)], [WARM, dict(LAST, begin=1, end=1)], ''),
    ],
)
def test_a_schedule_without_a_step_is_left_out(schedules, kept, told):
    cfg = Config(dict(train_cfg=dict(max_epochs=12), param_scheduler=schedules))
    assert set_epochs(cfg, 1) == f'length: 1 epoch; schedules scaled by 0.0833{told}'
    assert cfg.param_scheduler == kept


@pytest.mark.parametrize('epochs', [1, 2, 5])
def test_few_epochs_of_few_images_begin_with_the_whole_rate(epochs, train, tmp_path, capsys):
    """The warm-up of our recipes for ten epochs is then shorter than an iteration."""
    path = write_toy_config(tmp_path, f'few{epochs}')
    Path(path).write_text(
        Path(path).read_text()
        + """
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=10, val_interval=1)
train_dataloader['batch_size'] = 8
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=1, eta_min=0.0, convert_to_iter_based=True),
]
"""
    )
    assert train([path, '--epochs', str(epochs)]) == 0
    iters = counted(epochs, 'iteration')
    assert (
        f'param_scheduler.0 (LinearLR) warms up until epoch {epochs / 10}, and has no step in this '
        f'training (train_cfg.max_epochs={epochs}, {iters}): it is left out\n'
    ) in capsys.readouterr().out
    rates = [line['lr'] for line in logged(f'few{epochs}') if 'lr' in line]
    assert (len(rates), rates[0]) == (epochs, 0.05)


@pytest.mark.parametrize(('drop_last', 'processes', 'length'), [(False, 1, 2), (False, 3, 1)])
def test_iterations_are_those_of_the_images(drop_last, processes, length, tmp_path, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', str(processes))
    cfg = config(tmp_path, launcher='pytorch')
    cfg.train_dataloader.drop_last = drop_last
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=20)
    line = set_epochs(cfg, 10)
    iters = 10 * length
    assert cfg.train_cfg.max_iters == iters
    assert cfg.train_cfg.val_interval == iters // 4
    assert cfg.default_hooks.checkpoint.interval == iters // 2
    assert line.startswith(
        f'length: 10 epochs = {iters} iterations (4 images, {2 * processes} a batch)'
    )


def test_an_epoch_without_a_batch_is_refused(tmp_path):
    cfg = config(tmp_path, **{'train_dataloader.batch_size': 5, 'train_dataloader.drop_last': True})
    with pytest.raises(ValueError, match='4 images are less than a batch of 5, which is dropped'):
        set_epochs(cfg, 10)


def test_a_config_without_a_length_is_refused():
    with pytest.raises(ValueError, match=r'is for a config with train_cfg\.max_epochs or max_iter'):
        set_epochs(Config(dict(train_cfg=dict(type='OwnLoop'))), 3)


def test_the_rate_follows_the_batch_and_what_is_accumulated(train, tmp_path, capsys):
    more = 'auto_scale_lr = dict(base_batch_size=16)'
    path = write_toy_config(tmp_path, 'toy', more=more)
    options = ['optim_wrapper.accumulative_counts=2', 'param_scheduler=None']
    assert train([path, '--scale-lr', '--cfg-options', *options]) == 0
    said = capsys.readouterr().out
    assert 'learning rates x 0.25: 4 images a step, and the config is for 16\n' in said
    rates = [line['lr'] for line in logged('toy') if 'lr' in line]
    assert rates == pytest.approx([0.05 / 4] * len(rates))


def logged(name):
    (scalars,) = Path('work_dirs', name).glob('*/vis_data/scalars.json')
    return list(map(json.loads, scalars.read_text().splitlines()))


def test_a_config_that_does_not_say_its_batch_is_refused(train, tmp_path, capsys):
    assert train([write_toy_config(tmp_path, 'toy'), '--scale-lr']) == 2
    assert capsys.readouterr().err == (
        'error: --scale-lr: the config does not say for which batch its learning rate is; set '
        'auto_scale_lr.base_batch_size, images of all GPUs in a step\n'
    )


@pytest.mark.parametrize('path', RECIPES, ids=lambda path: path.stem)
def test_recipes_say_their_batch(path):
    cfg = load_config(str(path))
    batch = cfg.train_dataloader.batch_size
    gpus = cfg.auto_scale_lr.base_batch_size / batch
    small = 'camvid' in path.stem or 'nuclei' in path.stem or 'shapes' in path.stem
    assert gpus == (1 if small else 16 if 'vitdet' in str(path) else 8)
    assert not cfg.auto_scale_lr.enable


def metrics_of(values, hook, hub):
    """After how many validations a training would end."""
    runner = SimpleNamespace(
        cfg={},
        message_hub=hub,
        train_loop=SimpleNamespace(stop_training=False),
        logger=SimpleNamespace(info=lambda line: None),
    )
    hook.before_train(runner)
    for count, value in enumerate(values, 1):
        hook.after_val_epoch(runner, {'other': 1.0, 'mIoU': value})
        if runner.train_loop.stop_training:
            return count
    return None


def test_patience_counts_validations_and_survives_a_resume():
    hub = MessageHub('patience')
    assert metrics_of([1, 2, 2, 1.5], PatienceHook(3), hub) is None
    state = hub.state_dict()
    again = MessageHub('patience again')
    again.load_state_dict(state)
    assert metrics_of([2, 9], PatienceHook(3), again) == 1
    assert metrics_of([1, 2, 2, 1.5, 2.001], PatienceHook(3), MessageHub('new')) is None
    assert metrics_of([1] * 4, PatienceHook(3), MessageHub('flat')) == 4


def test_a_training_ends_early(train, tmp_path, capsys):
    """The toy's metric falls after its second evaluation."""
    path = write_toy_config(tmp_path, 'toy', drawn=True)
    assert train([path, '--early-stopping', '1', '--epochs', '9', '--no-sanity-check']) == 0
    record = json.loads(Path('work_dirs/toy/record.json').read_text())
    values = [each['metrics']['toy/mIoU'] for each in record['validations']]
    assert len(values) < 9
    assert values[-1] <= values[-2]
    assert sorted(values[:-1]) == values[:-1]


def test_averaged_weights_are_in_the_checkpoint(train, tmp_path):
    assert train([write_toy_config(tmp_path, 'toy'), '--ema', '--epochs', '2']) == 0
    saved = torch.load('work_dirs/toy/epoch_2.pth', weights_only=True)
    averaged = saved['ema_state_dict']
    assert averaged.keys() > {'steps'}
    assert any(
        not torch.equal(value, saved['state_dict'][name.removeprefix('module.')])
        for name, value in averaged.items()
        if name != 'steps'
    )


def test_what_the_config_does_already_is_refused():
    cfg = Config(dict(custom_hooks=[dict(type='EMAHook')], val_dataloader={1: 1}))
    with pytest.raises(ValueError, match='ema=True: the config has an EMAHook already'):
        average_weights(cfg)
    cfg.custom_hooks = [dict(type='EarlyStoppingHook')]
    with pytest.raises(ValueError, match='the config has an EarlyStoppingHook; leave one out'):
        stop_early(cfg, 3)
    with pytest.raises(ValueError, match='is for a training that validates'):
        stop_early(Config(dict(a=1)), 3)


def test_a_trial(train, tmp_path, capsys):
    path = write_toy_config(tmp_path, 'toy', drawn=True)
    assert train([path, '--trial']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        'trial: 4 iterations of 2 images, at most 4 images to validate on, constant learning '
        'rates; its metric means nothing'
    )
    assert not Path('work_dirs/toy').exists()
    record = json.loads(Path('work_dirs/toy_trial/record.json').read_text())
    assert [each['iter'] for each in record['validations']] == [4]
    assert Path('work_dirs/toy_trial/iter_4.pth').is_file()


class Writer:
    """What TensorBoard's writer was given."""

    def __init__(self, folder):
        self.folder, self.scalars = folder, []
        writers.append(self)

    def add_scalar(self, name, value, step=0):
        self.scalars.append((name, step, value))

    def add_image(self, *args, **options):
        pass

    def add_text(self, *args, **options):
        pass

    def close(self):
        pass


writers = []


def test_tensorboard_gets_what_the_log_has(train, tmp_path, monkeypatch):
    writers.clear()
    for name in ('tensorboard', 'torch.utils.tensorboard'):
        module = ModuleType(name)
        module.SummaryWriter, module.__spec__ = Writer, SimpleNamespace(name=name)
        monkeypatch.setitem(sys.modules, name, module)
    assert train([write_toy_config(tmp_path, 'toy'), '--tensorboard']) == 0
    (writer,) = writers
    assert Path(writer.folder).parent.parent.name == 'toy'
    losses = [(step, value) for name, step, value in writer.scalars if name == 'loss']
    lines = [(line['step'], line['loss']) for line in logged('toy') if 'loss' in line]
    assert losses == [(step, pytest.approx(value)) for step, value in lines]
    assert len([name for name, *_ in writer.scalars if name == 'toy/mIoU']) == 3


# Of two names: MMEngine gives trainings of one name and one second the same visualizer
@pytest.mark.parametrize(('name', 'server'), [('local', None), ('served', 'http://tracking:5000')])
def test_mlflow_gets_losses_where_its_variable_says_else_in_the_work_dir(
    name, server, train, tmp_path, monkeypatch
):
    module = MagicMock(__spec__=SimpleNamespace(name='mlflow'))
    module.get_experiment_by_name.return_value = None
    monkeypatch.setitem(sys.modules, 'mlflow', module)
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    if server:
        monkeypatch.setenv('MLFLOW_TRACKING_URI', server)
    assert train([write_toy_config(tmp_path, name), '--mlflow', '--work-dir', 'work_dirs/one']) == 0
    folder = Path('work_dirs/one').absolute()
    module.set_tracking_uri.assert_called_once_with(server or f'sqlite:///{folder}/mlflow.db')
    files = None if server else f'file://{folder}/mlflow'
    module.create_experiment.assert_called_once_with('one', artifact_location=files)
    sent = [call.args for call in module.log_metrics.call_args_list]
    losses = [(step, values['loss']) for values, step in sent if 'loss' in values]
    assert losses == [(line['step'], line['loss']) for line in logged('one') if 'loss' in line]
    assert losses


@pytest.mark.parametrize('name', ['tensorboard', 'wandb', 'mlflow'])
def test_a_library_that_is_not_there_is_named(name, train, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    assert train([write_toy_config(tmp_path, 'toy'), f'--{name}']) == 2
    assert capsys.readouterr().err == (
        f'error: --{name} needs {name}: pip install vit_backbones[{name}]\n'
    )
