"""Two batches are validated before the first epoch, and nothing of it stays."""

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dist import get_rank
from mmengine.evaluator import BaseMetric, DumpResults, Evaluator
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, LOOPS, METRICS, MODELS
from mmengine.runner import ValLoop
from slow import few
from torch.multiprocessing import start_processes
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler
from toy_task import ToyMetric, ToyModel, write_toy_config

from vit_backbones.checks.validating import ValidationError, validate
from vit_backbones.training.run import train as run_training
from vit_backbones.training.sanity_check_hook import SanityCheckHook

LINE = 'validated 2 batches before the first epoch: '


@MODELS.register_module()
class RandomModel(ToyModel):
    """Draws numbers wherever it can, in validations too."""

    def forward(self, inputs, paths, mode='tensor'):
        noise = random.random() + np.random.rand() + torch.rand(()).item()
        result = super().forward(inputs, paths, mode)
        if mode == 'loss':
            result['loss'] = result['loss'] * noise
        return result


@METRICS.register_module()
class FailingMetric(ToyMetric):
    def compute_metrics(self, results):
        raise KeyError('area')


@HOOKS.register_module()
class SeenHook(Hook):
    """Notes the calls of hooks."""

    seen: list[str] = []  # noqa: RUF012

    def before_val(self, runner):
        self.seen.append('before_val')

    def after_val_iter(self, runner, **kwargs):
        self.seen.append('after_val_iter')

    def before_train(self, runner):
        self.seen.append(f'before_train {runner.model.training}')


@LOOPS.register_module()
class OwnLoop(ValLoop):
    pass


def log_of(name):
    (log,) = Path('work_dirs', name).glob('*/*.log')
    return log.read_text()


def losses_of(name):
    (scalars,) = Path('work_dirs', name).glob('*/vis_data/scalars.json')
    lines = map(json.loads, scalars.read_text().splitlines())
    return [line['loss'] for line in lines if 'loss' in line]


ITERS = (
    'train_cfg = dict(by_epoch=False, max_iters=6, val_interval=3)\n'
    "default_hooks['logger']['interval'] = 1\n"
)


@pytest.mark.parametrize('more', few(['', ITERS], ''), ids=['epochs', 'iterations'])
def test_losses_are_bitwise_those_without_it(train, tmp_path, more):
    noisy = f"model = dict(type='RandomModel')\ndefault_hooks['curves'] = None\n{more}"
    for name, flags in (('with', []), ('without', ['--no-sanity-check'])):
        assert train([write_toy_config(tmp_path, name, more=noisy), *flags]) == 0
    assert (LINE in log_of('with'), LINE in log_of('without')) == (True, False)
    losses = losses_of('with')
    assert len(losses) >= 3
    assert losses == losses_of('without')
    last = f'epoch_{1 if more else 3}.pth'
    saved = [torch.load(f'work_dirs/{name}/{last}') for name in ('with', 'without')]
    for key, value in saved[0]['state_dict'].items():
        assert torch.equal(value, saved[1]['state_dict'][key])


def test_no_hook_sees_it_and_no_metric_is_noted(train, tmp_path, capsys):
    SeenHook.seen.clear()
    config = write_toy_config(tmp_path, more="custom_hooks = [dict(type='SeenHook')]", drawn=True)
    assert train([config]) == 0
    calls = ['before_val', *['after_val_iter'] * 3]
    assert SeenHook.seen == ['before_train True', *calls * 3]
    # The metric counts its evaluations: 30 is the value of its first one
    record = json.loads(Path('work_dirs/toy/record.json').read_text())
    assert [each['metrics']['toy/mIoU'] for each in record['validations']] == [30.0, 50.0, 40.0]
    assert 'toy/mIoU: 30' in log_of('toy').split('Epoch(val) [1][3/3]')[1]
    output = capsys.readouterr().out
    assert output.count(LINE) == 1
    assert 'chatty' not in output


def test_a_resumed_training_goes_on_without_it(train, tmp_path):
    assert train([write_toy_config(tmp_path)]) == 0
    options = ['--cfg-options', 'train_cfg.max_epochs=4']
    assert train([str(tmp_path / 'toy.py'), '--resume', *options]) == 0
    # Both write the same log if they start in the same second
    logs = [log.read_text() for log in sorted(Path('work_dirs/toy').glob('*/*.log'))]
    assert ''.join(logs).count(LINE) == 1
    assert LINE in logs[0]


FAILURES = {
    'a metric': (
        "val_evaluator = dict(type='FailingMetric')",
        'KeyError: area',
    ),
    'a best checkpoint by another metric': (
        "default_hooks['checkpoint'] = dict(type='CheckpointHook', save_best='bbox_mAP')",
        "CheckpointHook.save_best is 'bbox_mAP', which is no metric of val_evaluator: name one of "
        'toy/other, toy/mIoU, toy/num',
    ),
    'a transform': (
        "val_dataloader['dataset']['pipeline'] = [dict(type='LoadImageFromFile'), "
        "dict(type='Resize', scale=(4, 4)), dict(type='PackToy'), dict(type='PackToy')]",
        'KeyError: img',
    ),
}


@pytest.mark.parametrize('case', FAILURES)
def test_a_failure_is_one_line_before_the_start(train, tmp_path, capsys, monkeypatch, case):
    more, reason = FAILURES[case]
    if case == 'a transform':  # the check of the data would find it first
        monkeypatch.setattr('vit_backbones.training.run.image_findings', lambda *args: [])
    assert train([write_toy_config(tmp_path, more=more)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f'error: a validation step before the first epoch fails: {reason} (--no-sanity-check '
        f'leaves this step out)'
    ]
    assert not list(Path('work_dirs/toy').glob('*.pth'))
    assert not Path('work_dirs/toy/record.json').exists()


@pytest.mark.slow
def test_from_python_it_is_an_exception_and_an_argument(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = write_toy_config(tmp_path, more=FAILURES['a metric'][0])
    text = r'^a validation step before the first epoch fails: KeyError: area \(sanity_check=False '
    with pytest.raises(ValidationError, match=text):
        run_training(config)
    with pytest.raises(KeyError, match='area'):  # as before, after the first epoch
        run_training(config, sanity_check=False)


@pytest.mark.parametrize(
    'more',
    [
        "val_cfg = dict(type='OwnLoop')",
        'val_dataloader = val_cfg = val_evaluator = None',
        "val_evaluator = dict(type='FailingMetric')\ntrain_cfg['val_begin'] = 4",
    ],
    ids=['another loop', 'no data', 'no validation'],
)
def test_trainings_that_validate_otherwise_are_left_out_without_a_line(train, tmp_path, more):
    name = f'toy{len(more)}'  # runs of one name share a log if they start in one second
    assert train([write_toy_config(tmp_path, name, more=more)]) == 0
    assert 'before the first epoch' not in log_of(name)


def test_a_number_of_batches_below_1_is_refused():
    with pytest.raises(ValueError, match='num_batches must be at least 1, got 0'):
        SanityCheckHook(num_batches=0)


class Numbers:
    """Eight numbers."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return index


class Counting(BaseMetric):
    """Notes the numbers."""

    def __init__(self):
        super().__init__(prefix='count')
        self.all = []

    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)
        self.all.extend(data_samples)

    def compute_metrics(self, results):
        return dict(numbers=sorted(results))


class Model(torch.nn.Module):
    """Gives its batch; its part stays in evaluation mode, as a frozen one."""

    def __init__(self):
        super().__init__()
        self.part = torch.nn.Dropout()
        self.part.eval()

    def val_step(self, batch):
        assert not self.training
        return list(batch)


class Buckets(BatchSampler):
    """Keeps what it has not given, as mmdet's AspectRatioBatchSampler."""

    def __init__(self, *args):
        super().__init__(*args)
        self.left = []

    def __iter__(self):
        for index in self.sampler:
            self.left.append(index)
            if len(self.left) == self.batch_size:
                yield self.left[:]
                self.left.clear()


def loader_of(batch_size=2, kind=BatchSampler):
    batches = kind(SequentialSampler(data := Numbers()), batch_size, False)
    return DataLoader(data, batch_sampler=batches, collate_fn=list)


def test_evaluator_sampler_and_modes_stay():
    model, metric, loader = Model(), Counting(), loader_of(kind=Buckets)
    done = validate(model, loader, Evaluator(metric), count=2)
    assert (done.batches, done.metrics) == (2, {'count/numbers': [0, 1, 2, 3]})
    assert (metric.results, metric.all, loader.batch_sampler.left) == ([], [], [])
    assert (model.training, model.part.training) == (True, False)
    assert validate(model, loader, Evaluator(metric), count=2).metrics == done.metrics


def test_fewer_images_than_two_batches():
    done = validate(Model(), loader_of(16), Evaluator(Counting()), count=2)
    assert (done.batches, done.metrics) == (1, {'count/numbers': [*range(8)]})


def test_data_that_give_no_batch():
    loader = DataLoader(Numbers(), batch_size=16, drop_last=True, collate_fn=list)
    line = 'val_dataloader gives no batch of its 8 images: leave drop_last=True out'
    with pytest.raises(ValidationError, match=line):
        validate(Model(), loader, Evaluator(Counting()), count=2)


def test_files_of_metrics_are_not_left(tmp_path):
    path = tmp_path / 'results.pkl'
    path.write_text('of an earlier run')
    validate(Model(), loader_of(), Evaluator(DumpResults(str(path))), count=2)
    assert path.read_text() == 'of an earlier run'
    assert os.listdir(tmp_path) == ['results.pkl']


def test_data_without_indices_are_left_out():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(range(8))

    assert validate(Model(), DataLoader(Stream()), Evaluator(Counting()), count=2) is None


class ModelFailingInOne(Model):
    def val_step(self, batch):
        if get_rank() == 1:
            raise ValueError('rank 1')
        return super().val_step(batch)


class FailingCount(Counting):
    def compute_metrics(self, results):
        raise ValueError('metric')


def validate_as_one_of_two(rank, folder):
    """Write the metrics and batches of one process, and how two validations fail."""
    torch.set_num_threads(1)  # those of OpenMP do not survive a fork
    torch.distributed.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=2)
    mine = [[1, 3]] if rank else [[0, 2], [4, 6]]  # one has fewer batches
    loader = DataLoader(Numbers(), batch_sampler=mine, collate_fn=list)
    done = validate(Model(), loader, Evaluator(Counting()), count=2)
    said = []
    for model, metric in ((ModelFailingInOne(), Counting()), (Model(), FailingCount())):
        try:
            validate(model, loader, Evaluator(metric), count=2)
        except ValidationError as error:
            said.append(str(error))
    (folder / f'{rank}.json').write_text(json.dumps([done.metrics, done.batches, said]))


def test_two_processes_validate_together_and_fail_together(tmp_path):
    start_processes(validate_as_one_of_two, (tmp_path,), nprocs=2, start_method='fork')
    first, second = (json.loads((tmp_path / f'{rank}.json').read_text()) for rank in (0, 1))
    metrics, said = {'count/numbers': [0, 1, 2, 3, 4, 6]}, ['rank 1', 'metric']
    assert first == [metrics, 2, said]
    assert second == [metrics, 1, said]
