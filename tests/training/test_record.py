import json
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.logging import MessageHub
from torch import nn

from vit_backbones.training.record import RecordHook


@pytest.fixture
def runner(tmp_path):
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    model[0].requires_grad_(False)
    loop = SimpleNamespace(dataloader=SimpleNamespace(batch_size=4))
    hub = MessageHub(f'record {tmp_path}')
    for seconds in (9.0, 0.5, 0.5, 0.4):
        hub.update_scalar('train/time', seconds)
    return SimpleNamespace(
        model=model,
        work_dir=str(tmp_path),
        message_hub=hub,
        cfg=Config(),
        train_loop=loop,
        val_loop=None,
    )


def written(runner, tmp_path):
    hook = RecordHook()
    hook.before_train(runner)
    hook.after_train_iter(runner)
    hook.after_train(runner)
    return json.loads((tmp_path / 'record.json').read_text())


def test_speed_is_that_of_the_median_iteration(runner, tmp_path):
    record = written(runner, tmp_path)
    assert record['train_images_per_second'] == 8.0
    assert 'val_images_per_second' not in record


def test_frozen_parameters_are_not_trained(runner, tmp_path):
    record = written(runner, tmp_path)
    assert (record['parameters'], record['trained_parameters']) == (32, 12)


def test_minutes_go_on_after_a_resume(runner, tmp_path):
    runner.message_hub.update_info('trained_seconds', 600.0)
    assert 10.0 <= written(runner, tmp_path)['minutes'] < 10.1
    # and again, from what a checkpoint would hold now
    assert 10.0 <= written(runner, tmp_path)['minutes'] < 10.2
