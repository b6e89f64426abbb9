"""What a config leaves open is filled in for the machine, and what it has stays."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseDataPreprocessor
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import nn
from toy_task import write_toy_config

from vit_backbones.training import machine
from vit_backbones.training.machine import copy_without_waiting, fit_to_machine, keep_own_way


@pytest.fixture
def gpu(monkeypatch):
    """A machine with a GPU and 16 cores, for code that only asks."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 4)
    monkeypatch.setattr(machine.os, 'sched_getaffinity', lambda process: set(range(16)))
    monkeypatch.delenv('LOCAL_WORLD_SIZE', raising=False)


def fitted(**given):
    config = Config(given)
    fit_to_machine(config)
    return config


@pytest.mark.parametrize(
    ('optimizer', 'more', 'fused'),
    [
        (dict(type='AdamW'), {}, True),
        (dict(type='Adam', amsgrad=True), dict(runner_type='Runner'), True),
        (dict(type='AdamW', fused=False), {}, False),
        (dict(type='AdamW', foreach=True), {}, None),
        (dict(type='AdamW', capturable=True), {}, None),
        (dict(type='SGD'), {}, None),
        (dict(type='AdamW'), dict(runner_type='FlexibleRunner'), None),
    ],
)
def test_adam_is_fused_unless_the_config_says_how(optimizer, more, fused):
    config = fitted(optim_wrapper=dict(optimizer=dict(optimizer)), **more)
    assert config.optim_wrapper.optimizer.get('fused') is fused


def test_other_devices_lack_fused_kernels(monkeypatch):
    monkeypatch.setattr(machine, 'get_device', lambda: 'npu')
    assert fitted(optim_wrapper=dict(optimizer=dict(type='AdamW'))).optim_wrapper.optimizer == dict(
        type='AdamW'
    )


def test_a_config_without_an_optimizer_stays():
    given = dict(optim_wrapper=None, train_dataloader=None)
    assert fitted(**given).to_dict() == given


def test_one_worker_loads_on_a_cpu(no_gpu):
    config = fitted(train_dataloader={}, val_dataloader=dict(num_workers=0), test_dataloader=None)
    assert config.train_dataloader == dict(num_workers=1, persistent_workers=True)
    assert config.val_dataloader == dict(num_workers=0)
    config = fitted(
        train_dataloader=dict(persistent_workers=False), val_dataloader=dict(num_workers=3)
    )
    assert config.train_dataloader == dict(num_workers=1, persistent_workers=False)
    assert config.val_dataloader == dict(num_workers=3, persistent_workers=True)


@pytest.mark.parametrize(
    ('launcher', 'world', 'number'), [('none', None, 8), ('pytorch', '8', 1), ('slurm', None, 3)]
)
def test_workers_share_the_cores_beside_a_gpu(launcher, world, number, gpu, monkeypatch):
    if world:
        monkeypatch.setenv('LOCAL_WORLD_SIZE', world)
    own = dict(num_workers=2, persistent_workers=False, pin_memory=False)
    config = fitted(launcher=launcher, train_dataloader={}, val_dataloader=dict(own))
    expected = dict(num_workers=number, persistent_workers=True, pin_memory=True)
    assert config.train_dataloader == expected
    assert config.val_dataloader == own


def test_images_are_copied_while_the_gpu_computes(gpu, monkeypatch):
    model = nn.ModuleDict(dict(data_preprocessor=BaseDataPreprocessor()))
    copy_without_waiting(model)
    assert model.data_preprocessor._non_blocking is True
    monkeypatch.undo()
    waiting = nn.ModuleDict(dict(data_preprocessor=BaseDataPreprocessor()))
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    copy_without_waiting(waiting)
    assert waiting.data_preprocessor._non_blocking is False


def trained(model, **way):
    """A wrapper after two steps."""
    groups = [dict(params=[each], lr=1e-2) for each in model.parameters()]
    wrapper = OptimWrapper(torch.optim.AdamW(groups, **way))
    for _ in range(2):
        wrapper.update_params(model(torch.ones(2, 3)).square().sum())
    return wrapper


@pytest.mark.parametrize('before', [None, False, True])
@pytest.mark.parametrize('now', [None, True])
def test_a_resumed_optimizer_computes_as_it_was_built(before, now):
    """With its own way, whichever the checkpoint had, and to the same weights."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    wrapper = trained(model, fused=before)
    state = wrapper.state_dict()
    for group in state['param_groups'] if before is None else ():
        del group['fused'], group['foreach']  # files of earlier versions of PyTorch
    again = copy.deepcopy(model)
    groups = [dict(params=[each], lr=1.0) for each in again.parameters()]
    resumed = OptimWrapper(torch.optim.AdamW(groups, fused=now))
    keep_own_way(resumed)
    resumed.load_state_dict(copy.deepcopy(state))
    assert {group['fused'] for group in resumed.optimizer.param_groups} == {now}
    assert {group['lr'] for group in resumed.optimizer.param_groups} == {1e-2}
    for each, network in ((wrapper, model), (resumed, again)):
        each.update_params(network(torch.ones(2, 3)).square().sum())
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
    steps = [state['step'] for state in resumed.optimizer.state.values()]
    assert [(step.device.type, step.item()) for step in steps] == [('cpu', 3.0)] * 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
@pytest.mark.parametrize(('fused', 'place'), [(None, 'cpu'), (True, 'cuda')])
def test_counts_lie_where_the_way_needs_them(fused, place):
    model = nn.Linear(3, 2)
    state = trained(model, fused=True).state_dict()
    on_gpu = copy.deepcopy(model).cuda()
    state['state'] = {n: {k: v.cuda() for k, v in s.items()} for n, s in state['state'].items()}
    groups = [dict(params=[each]) for each in on_gpu.parameters()]
    resumed = OptimWrapper(torch.optim.AdamW(groups, fused=fused))
    keep_own_way(resumed)
    resumed.load_state_dict(state)
    devices = {state['step'].device.type for state in resumed.optimizer.state.values()}
    assert devices == {place}


def test_fused_steps_are_the_loops_to_rounding():
    weights = []
    for way in ({}, dict(fused=True)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 2))
        given = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2, **way))
        wrapper = build_optim_wrapper(model, given)
        for _ in range(20):
            wrapper.update_params((model(torch.randn(4, 8)) - 1).square().mean())
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-5)


def test_a_training_is_fused_and_resumes_an_earlier_one(train, tmp_path):
    """A checkpoint that was written before, without the fused way."""
    config = write_toy_config(tmp_path, 'fused')
    once = ['--cfg-options', 'train_cfg.max_epochs=1', 'optim_wrapper.optimizer.fused=False']
    assert train([config, *once]) == 0
    assert train([config, '--resume']) == 0
    saved = [
        torch.load(f'work_dirs/fused/epoch_{i}.pth')['optimizer']['param_groups'] for i in (1, 3)
    ]
    assert [{group['fused'] for group in groups} for groups in saved] == [{False}, {True}]
