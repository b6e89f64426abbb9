"""FSDP in one process, where shards are whole; tests/test_distributed.py has two."""

import sys
from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from redraw import backbone, redraw
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torchvision.models import VisionTransformer

from vit_backbones import ViTFeatBackbone
from vit_backbones.training.sharding import ViTFSDPStrategy, vit_blocks

LORA = dict(r=2, targets=['in_proj', 'out_proj'])
KINDS = {
    'plain': {},
    'frozen': dict(frozen_stages=3),
    'partly frozen': dict(frozen_stages=2),
    'checkpointed': dict(with_cp=True),
    'windows': dict(window_size=3, window_block_indexes=(0, 1), use_rel_pos=True),
    'lora': dict(lora=dict(r=2), frozen_stages=3),
    'positions': dict(pos_interp='original'),
}
SMALL = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=64)
SWIN = dict(model_type='swin', embed_dim=24, depths=[1, 1], num_heads=[2, 2], window_size=4)
# Of other libraries, whose positions our adapters resample
OTHERS = {
    'torchvision': dict(model_name=VisionTransformer(64, 16, 2, 2, 32, 64), lora=LORA),
    'dinov2': dict(model_name=dict(SMALL, model_type='dinov2', patch_size=16)),
    'vitdet': dict(model_name=dict(SMALL, model_type='vitdet', patch_size=16)),
    'swin': dict(model_name=SWIN),
}


class Toy(BaseModel):
    def __init__(self, vit):
        super().__init__()
        self.backbone = vit
        self.head = nn.Conv2d(vit.out_channels[0], 2, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.head(self.backbone(inputs)[0])


@pytest.fixture(scope='module')
def group():
    """A process group of one."""
    hook, store = sys.excepthook, torch.distributed.HashStore()
    torch.distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()
    sys.excepthook = hook  # PyTorch's would write `[rank0]` before each line


@pytest.fixture
def strategy(group, monkeypatch):
    """A strategy of one process on the CPU."""
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    strategy = ViTFSDPStrategy.__new__(ViTFSDPStrategy)
    strategy.model_wrapper = strategy.activation_checkpointing = None
    strategy._init_state_dict_cfg('full')
    strategy.state_dict_config.offload_to_cpu = False
    strategy.optim_state_dict_config.offload_to_cpu = False
    strategy.logger = MMLogger.get_instance('sharding')
    return strategy


def toy(**options):
    torch.manual_seed(0)
    return redraw(Toy(backbone(depth=3, **options))).train()


def gradients(model):
    torch.manual_seed(1)
    model(torch.randn(2, 3, 64, 96)).square().mean().backward()
    norms = [p.grad.norm() for p in model.parameters() if p.grad is not None and p.grad.numel()]
    return torch.stack(norms).norm(), len(norms)


@pytest.mark.parametrize('options', KINDS.values(), ids=KINDS)
def test_gradients_are_those_of_the_model_itself(options, strategy):
    expected, number = gradients(toy(**options))
    got, sharded = gradients(strategy._wrap_model(toy(**options)))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)
    assert sharded == number


@pytest.mark.parametrize('options', OTHERS.values(), ids=OTHERS)
def test_gradients_of_other_libraries_are_those_of_the_model_itself(options, strategy):
    source = {} if 'lora' in options else dict(source='transformers')
    toys = [redraw(Toy(ViTFeatBackbone(**options, **source))).train() for _ in range(2)]
    expected, number = gradients(toys[0])
    got, sharded = gradients(strategy._wrap_model(toys[1]))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)
    assert sharded == number


def test_each_block_is_a_unit(strategy):
    model = strategy._wrap_model(toy())
    units = [each for each in model.modules() if isinstance(each, FullyShardedDataParallel)]
    assert [type(each.module).__name__ for each in units] == ['Toy'] + ['Block'] * 3


@pytest.mark.parametrize(
    ('name', 'source', 'number'),
    [
        ('swin_tiny_patch4_window7_224', 'timm', 4),
        ('eva02_tiny_patch14_224', 'timm', 12),
        (SWIN, 'transformers', 0),  # the adapter runs its parts
    ],
)
def test_blocks_of_other_models(name, source, number):
    with torch.device('meta'):
        vit = ViTFeatBackbone(name, source=source, pretrained=False)
    assert len(list(vit_blocks(vit))) == number


def test_a_frozen_backbone_builds_no_graph(strategy):
    model = strategy._wrap_model(toy(frozen_stages=3))
    made = []
    model.module.backbone.register_forward_hook(lambda *args: made.append(args[-1][0]))
    model(torch.randn(2, 3, 64, 96))
    assert not made[0].requires_grad


def build(strategy, model, **more):
    """Wrapped, and with its optimizer."""
    strategy.id_to_name = {id(p): name for name, p in model.named_parameters()}
    strategy.model = strategy._wrap_model(model)
    wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.1), **more)
    strategy.optim_wrapper = strategy.build_optim_wrapper(wrapper, strategy.model)
    return strategy.optim_wrapper


def test_clipping_takes_part_even_where_nothing_learns(strategy, monkeypatch):
    """Other processes wait for each one."""
    wrapper = build(strategy, toy(), clip_grad=dict(max_norm=1.0))
    norms = []
    monkeypatch.setattr(
        strategy.model, 'clip_grad_norm_', lambda max_norm: norms.append(max_norm) or torch.ones(())
    )
    wrapper._clip_grad()  # no parameter has a gradient yet
    assert norms == [1.0]


def test_clipping_is_by_the_whole_norm(strategy):
    plain, wrapper = toy(), build(strategy, toy(), clip_grad=dict(max_norm=0.01))
    config = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.1))
    alone: OptimWrapper = build_optim_wrapper(plain, config | dict(clip_grad=dict(max_norm=0.01)))
    for each, optim in ((plain, alone), (strategy.model, wrapper)):
        gradients(each)
        optim._clip_grad()
    clipped = [p.grad.norm() for p in plain.parameters()]
    sharded = [p.grad.norm() for p in strategy.model.parameters() if p.grad.numel()]
    assert torch.stack(clipped).norm() == pytest.approx(0.01, rel=1e-4)
    assert torch.stack(sharded).norm() == pytest.approx(0.01, rel=1e-4)


def test_an_optimizer_is_saved_whole_and_taken_up_again(strategy):
    wrapper = build(strategy, toy())
    wrapper.base_param_settings = dict(lr=0.3)  # what a schedule starts from
    gradients(strategy.model)
    wrapper.step()
    saved = deepcopy(strategy.optim_state_dict())
    assert 'backbone.vit.blocks.0.norm1.weight' in saved['state']
    assert saved['base_param_settings'] == dict(lr=0.3)
    state = wrapper.optimizer.state
    before = {key: each['exp_avg'].clone() for key, each in state.items()}
    wrapper.base_param_settings = None
    for each in state.values():
        each['exp_avg'].zero_()
    strategy.load_optim_state_dict(saved)
    assert wrapper.base_param_settings == dict(lr=0.3)
    after = wrapper.optimizer.state
    assert all(torch.equal(after[key]['exp_avg'], value) for key, value in before.items())


def test_weights_that_do_not_fit_are_told(strategy, monkeypatch):
    build(strategy, toy())
    lines = []
    monkeypatch.setattr(strategy, 'logger', SimpleNamespace(warning=lines.append))
    state = strategy.model_state_dict()
    state['other'] = state.pop('head.bias')
    strategy.load_model_state_dict(state)
    assert lines == [
        '1 tensors are missing from the checkpoint: head.bias',
        '1 tensors are left over in the checkpoint: other',
    ]
