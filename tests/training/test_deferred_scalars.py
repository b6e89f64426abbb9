"""Losses that wait on the device are the same as MMEngine's, wherever they are read."""

import copy
import json
import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop
from torch import nn
from toy_task import write_toy_config

from vit_backbones.benchmark.counting import counted
from vit_backbones.training import added_hooks
from vit_backbones.training.deferred_scalars import DeferredBuffer, keep_scalars
from vit_backbones.training.run import train

# Values that float32 holds and shorter types round, a number, a sum of several, a later loss
LOSSES = [
    {
        'train/loss': torch.tensor(0.1 * i, requires_grad=True) * 3,
        'train/half': torch.tensor([1.1 * i]).bfloat16(),
        'train/acc': torch.tensor(i),
        'train/lr': 0.1 * i,
        **({'train/late': torch.tensor(2.0 * i)} if i > 2 else {}),
        'train/double': torch.tensor(1 / (i + 3), dtype=torch.float64),
    }
    for i in range(6)
]


@pytest.fixture
def hubs(request):
    """Two message hubs: MMEngine's way, and ours."""
    stock, ours = (MessageHub(f'{request.node.name} {each}') for each in ('stock', 'ours'))
    for losses in LOSSES:
        for name, value in losses.items():
            stock.update_scalar(name, value)
        keep_scalars(ours, losses)
    return stock, ours


def same(one, other):
    assert list(one) == list(other)
    for name in one:
        for mine, theirs in zip(one[name].data, other[name].data, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    return True


def test_values_and_their_order_are_the_same(hubs):
    stock, ours = hubs
    assert same(stock.log_scalars, ours.log_scalars)
    assert stock._resumed_keys == ours._resumed_keys


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda held: pickle.loads(pickle.dumps(held))])
def test_copies_and_checkpoints_hold_the_stock_class(copied, hubs):
    stock, ours = (hub.state_dict() for hub in hubs)
    assert {type(each) for each in copied(ours['log_scalars']).values()} == {HistoryBuffer}
    assert same(stock['log_scalars'], copied(ours['log_scalars']))
    assert pickle.dumps(stock['log_scalars']['train/loss']) == pickle.dumps(
        ours['log_scalars']['train/loss']
    )


def test_a_resumed_history_goes_on(hubs):
    stock, ours = hubs
    again = MessageHub('resumed')
    again.load_state_dict(ours.state_dict())
    for hub in (stock, again):
        hub.update_scalar('train/loss', 7.0)
        hub.update_scalar('train/late', 8.0)
    keep_scalars(again, LOSSES[3])
    for name, value in LOSSES[3].items():
        stock.update_scalar(name, value)
    assert type(again.get_scalar('train/loss')) is DeferredBuffer
    assert same(stock.log_scalars, again.log_scalars)


def test_one_copy_brings_all():
    hub = MessageHub('counted')
    losses = {f'train/loss{i}': torch.tensor(float(i)) for i in range(30)}

    def twenty(keep):
        for _ in range(20):
            keep()
        return [buffer.mean(20) for buffer in hub.log_scalars.values()]

    assert counted(lambda: twenty(lambda: keep_scalars(hub, losses))).waits == {'tolist': 1}
    stock = MessageHub('stock')
    each = counted(lambda: twenty(lambda: stock.update_scalars(losses)))
    assert each.synchronisations == 600
    assert [buffer.mean() for buffer in hub.log_scalars.values()] == list(range(30))


def test_an_old_value_is_fetched_before_too_many_wait(monkeypatch):
    monkeypatch.setattr('vit_backbones.training.deferred_scalars._MOST_ROWS', 3)
    hub = MessageHub('many')
    for i in range(8):
        keep_scalars(hub, {'train/loss': torch.tensor(float(i))})
    assert len(hub.waiting.rows) == 2
    assert hub.get_scalar('train/loss').data[0].tolist() == list(range(8))


@HOOKS.register_module()
class SeenLossHook(Hook):
    """Reads the newest loss of each iteration, as a hook that looks for NaN may."""

    def __init__(self, every):
        self.every, self.seen = every, []
        type(self).last = self

    def after_train_iter(self, runner, batch_idx, outputs=None, **kwargs):
        if self.every_n_train_iters(runner, self.every):
            newest = runner.message_hub.get_scalar('train/loss').current()
            self.seen.append((newest, outputs['loss'].item()))


def run(folder, name, every):
    """A training's scalars, log lines without times, curves, and checkpoints."""
    more = (
        f"custom_hooks = [dict(type='SeenLossHook', every={every})]\n"
        "optim_wrapper['clip_grad'] = dict(max_norm=0.01)"
    )
    train(write_toy_config(folder, name, more=more))
    (log,) = folder.glob(f'work_dirs/{name}/*/*.log')
    losses = re.findall(r'Epoch\(train\)(.*?)eta.*(grad_norm.*)', log.read_text())
    (scalars,) = folder.glob(f'work_dirs/{name}/*/vis_data/scalars.json')
    kept = [json.loads(line) for line in scalars.read_text().splitlines()]
    kept = [{k: v for k, v in each.items() if 'time' not in k} for each in kept]
    saved = torch.load(f'work_dirs/{name}/epoch_3.pth')
    return losses, kept, saved['message_hub']['log_scalars'], saved['state_dict']


@pytest.mark.parametrize('every', [1, 100])
def test_a_training_logs_and_saves_the_same(every, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ours = run(tmp_path, f'ours{every}', every)
    assert all(newest == loss for newest, loss in SeenLossHook.last.seen)
    assert len(SeenLossHook.last.seen) == 9 // every
    monkeypatch.setattr(added_hooks, '_BETTER', {})
    stock = run(tmp_path, f'stock{every}', every)
    assert len(ours[0]) > 2
    assert ours[:2] == stock[:2]
    numbers = [{k: v for k, v in each[2].items() if 'time' not in k} for each in (ours, stock)]
    assert same(*numbers)
    assert {type(each) for each in ours[2].values()} == {HistoryBuffer}
    assert all(torch.equal(ours[3][key], value) for key, value in stock[3].items())
    assert 'DeferredRuntimeInfoHook' in Path(f'work_dirs/ours{every}/ours{every}.py').read_text()


def test_only_iterations_with_a_line_wait(tmp_path, monkeypatch):
    """A whole iteration: data, model, losses, clipping, fused AdamW and all hooks."""
    monkeypatch.chdir(tmp_path)
    waits, run_iter = [], EpochBasedTrainLoop.run_iter

    def counting(loop, index, batch):
        waits.append(dict(counted(lambda: run_iter(loop, index, batch)).waits))

    monkeypatch.setattr(EpochBasedTrainLoop, 'run_iter', counting)
    clips = "optim_wrapper['clip_grad'] = dict(max_norm=0.01)"
    train(write_toy_config(tmp_path, 'waits', more=clips))
    # A line each two iterations; each but the first reads whether the gradients of the step before
    # were finite, which lies on the host by then
    flag = {'_local_scalar_dense': 1}
    assert waits == [{}, flag | {'tolist': 1}, flag] + [flag, flag | {'tolist': 1}, flag] * 2


def test_a_hook_of_the_users_own_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hooks = {'runtime_info': dict(type='OtherHook'), 'timer': None}
    cfg = added_hooks.Config(dict(default_hooks=hooks))
    added_hooks.add_hooks(cfg, ())
    assert cfg.default_hooks.runtime_info == dict(type='OtherHook')
    for given in ({}, {'runtime_info': dict(type='RuntimeInfoHook', priority='LOW')}):
        cfg = added_hooks.Config(dict(default_hooks=given))
        added_hooks.add_hooks(cfg, ())
        expected = given.get('runtime_info', {}) | dict(type='DeferredRuntimeInfoHook')
        assert cfg.default_hooks.runtime_info == expected


def test_the_norm_is_that_of_the_gradients():
    from vit_backbones.training.deferred_scalars import _clip

    hub, layer = MessageHub('clipped'), nn.Linear(3, 2)
    (layer(torch.ones(1, 3)).sum() * 5).backward()
    expected = torch.cat([p.grad.flatten() for p in layer.parameters()]).norm().item()
    wrapper = SimpleNamespace(message_hub=hub, grad_name='grad_norm')
    assert _clip(wrapper, list(layer.parameters()), max_norm=0.5) is None
    assert float(wrapper.clipped_norm) == pytest.approx(expected)
    assert hub.get_scalar('train/grad_norm').current() == pytest.approx(expected)
    clipped = torch.cat([p.grad.flatten() for p in layer.parameters()]).norm().item()
    assert clipped == pytest.approx(0.5)


def test_a_history_grows_in_place_as_mmengines(monkeypatch):
    hub, stock = MessageHub('growing'), HistoryBuffer([1.0], [1], 700)
    hub.log_scalars['train/loss'] = HistoryBuffer([1.0], [1], 700)
    copies = counted_copies(monkeypatch)
    for i in range(3000):
        if i % 3:
            keep_scalars(hub, {'train/loss': torch.tensor(0.5 * i)})
            stock.update(0.5 * i)
        else:
            hub.log_scalars['train/loss'].update(i, 2 + i % 2)
            stock.update(i, 2 + i % 2)
    ours = hub.log_scalars['train/loss']
    assert type(ours) is DeferredBuffer
    assert len(copies) < 20
    for mine, theirs in zip(ours.data, stock.data, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(TypeError, match='log_val must be int or float'):
        ours.update('1')


def counted_copies(monkeypatch):
    """Each new array of a history, noted in the list."""
    made, empty = [], np.empty
    monkeypatch.setattr(np, 'empty', lambda *args: made.append(args) or empty(*args))
    return made
