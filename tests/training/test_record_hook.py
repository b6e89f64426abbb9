import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from vit_backbones.training.record_hook import RecordHook, _iteration_time


@pytest.fixture
def runner(tmp_path):
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    model[0].requires_grad_(False)
    loop = SimpleNamespace(dataloader=DataLoader(range(8), batch_size=4))
    hub = MessageHub(f'record {tmp_path}')
    for seconds in (9.0, 0.5, 0.5, 0.4):
        hub.update_scalar('train/time', seconds)
    return SimpleNamespace(
        iter=0,
        model=model,
        work_dir=str(tmp_path),
        message_hub=hub,
        cfg=Config(),
        train_loop=loop,
        val_loop=None,
        test_loop=None,
    )


def written(runner, tmp_path):
    hook = RecordHook()
    hook.before_train(runner)
    hook.after_train_iter(runner, batch_idx=0)
    hook.after_train(runner)
    return json.loads((tmp_path / 'record.json').read_text())


def test_speed_is_that_of_the_median_iteration(runner, tmp_path):
    record = written(runner, tmp_path)
    assert record['train_images_per_second'] == 8.0
    assert 'val_images_per_second' not in record


def test_a_batch_sampler_knows_the_size_that_the_loader_does_not(runner, tmp_path):
    batches = BatchSampler(SequentialSampler(range(8)), batch_size=2, drop_last=False)
    runner.train_loop.dataloader = DataLoader(range(8), batch_sampler=batches)
    assert written(runner, tmp_path)['train_images_per_second'] == 4.0


def test_what_is_no_number_is_null_and_what_is_no_value_is_text(runner, tmp_path):
    metrics = dict(mIoU=float('nan'), mAP=np.float32(0.5), table=np.ones(2), name='x')
    RecordHook().after_test_epoch(runner, metrics)
    record = json.loads((tmp_path / 'test.json').read_text())
    assert record['metrics'] == dict(mIoU=None, mAP=0.5, table='[1. 1.]', name='x')


def test_gpu_memory_is_the_most_of_all_iterations(runner, tmp_path, monkeypatch):
    peaks = iter((3 * 2**20, 7 * 2**20, 2 * 2**20, 2**20))
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'max_memory_allocated', lambda: next(peaks))
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: 'GPU')
    hook = RecordHook()
    hook.before_train(runner)
    for note in (hook.after_train_iter, hook.after_train_iter, hook.after_val_iter):
        note(runner, batch_idx=0)
    hook.after_train(runner)
    record = json.loads((tmp_path / 'record.json').read_text())
    assert (record['peak_memory_mib'], record['device']) == (7, '1 x GPU')


def test_frozen_parameters_are_not_trained(runner, tmp_path):
    record = written(runner, tmp_path)
    assert (record['parameters'], record['trained_parameters']) == (32, 12)


def test_minutes_go_on_after_a_resume(runner, tmp_path):
    runner.message_hub.update_info('trained_seconds', 600.0)
    assert 10.0 <= written(runner, tmp_path)['minutes'] < 10.1
    # and again, from what a checkpoint would hold now
    assert 10.0 <= written(runner, tmp_path)['minutes'] < 10.2


def test_each_resume_is_on_record(runner, tmp_path):
    assert written(runner, tmp_path)['resumed_at'] == []
    for runner.iter in (20, 30):
        record = written(runner, tmp_path)
    assert record['resumed_at'] == [20, 30]


@pytest.mark.parametrize(('gpu', 'expected'), [(False, 1.0), (True, 2.0)])
def test_the_speed_of_a_gpu_is_that_of_many_iterations(gpu, expected, monkeypatch):
    """Python runs ahead and then waits: most iterations seem short there. A pause is left out."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    times = [*[1.0] * 19, 21.0] * 3
    assert _iteration_time([*times, *[500.0] * 20, *times]) == expected
    assert _iteration_time(times[:3]) == 1.0
