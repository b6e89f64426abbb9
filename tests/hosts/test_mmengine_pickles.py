import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from toy_task import write_toy_config

from vit_backbones.hosts.mmengine_pickles import allow_mmengine_checkpoints


@pytest.fixture(autouse=True)
def allowed():
    with torch.serialization.safe_globals([]):  # restores the list afterwards
        allow_mmengine_checkpoints()
        yield


def test_allow__a_runners_checkpoint_loads(train, tmp_path):
    config = write_toy_config(tmp_path, 'saved')
    assert train([config, '--cfg-options', 'train_cfg.max_epochs=1']) == 0
    content = torch.load('work_dirs/saved/epoch_1.pth', weights_only=True)
    losses = content['message_hub']['log_scalars']['train/loss']
    assert isinstance(losses, HistoryBuffer)
    assert losses.data[0].shape == (3,)
    assert losses.min() <= losses.mean()


@pytest.mark.parametrize(
    'value',
    [np.arange(3.0), np.float32(0.5), np.int64(3), np.array([True]), np.array(['a', 'bc'])],
)
def test_allow__numpy_values_load(value, tmp_path):
    torch.save({'metric': value}, tmp_path / 'x.pth')
    loaded = torch.load(tmp_path / 'x.pth', weights_only=True)['metric']
    np.testing.assert_array_equal(loaded, value, strict=True)


def test_allow__twice_changes_nothing():
    before = set(torch.serialization.get_safe_globals())
    allow_mmengine_checkpoints()
    assert set(torch.serialization.get_safe_globals()) == before


class _Call:
    """Pickles into a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    'call',
    [
        _Call(os.system, 'true'),
        _Call(getattr, HistoryBuffer, '__init__'),
        _Call(getattr, np.ndarray, 'tofile'),
        _Call(getattr, OrderedDict, 'fromkeys'),
        _Call(eval, '1'),
    ],
    ids=['system', 'buffer', 'ndarray', 'dict', 'eval'],
)
def test_allow__anything_else_is_refused(call, tmp_path):
    torch.save({'state_dict': call}, tmp_path / 'x.pth')
    with pytest.raises(pickle.UnpicklingError, match='GLOBAL'):
        torch.load(tmp_path / 'x.pth', weights_only=True)


def test_mmengine_keeps_the_list_and_runs_no_code(tmp_path):
    torch.save({'state_dict': {}, 'losses': HistoryBuffer([1.0], [1])}, tmp_path / 'ours.pth')
    torch.save({'state_dict': {}, 'code': _Call(exec, f'open({str(tmp_path / "ran")!r}, "w")')},
               tmp_path / 'theirs.pth')  # fmt: skip
    before = set(torch.serialization.get_safe_globals())
    for _ in range(2):
        assert isinstance(load_checkpoint(tmp_path / 'ours.pth')['losses'], HistoryBuffer)
        with pytest.raises(pickle.UnpicklingError):
            load_checkpoint(tmp_path / 'theirs.pth')
    assert set(torch.serialization.get_safe_globals()) == before
    assert not (tmp_path / 'ran').exists()


def load_checkpoint(path):
    return CheckpointLoader.load_checkpoint(str(path), logger=None)
