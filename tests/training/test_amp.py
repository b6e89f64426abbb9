"""Mixed precision, on the CPU as on a GPU."""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from redraw import backbone
from test_training import MASK2FORMER, QUICK
from torch import nn
from toy_task import write_toy_config

from vit_backbones.devices import amp_dtype
from vit_backbones.training import amp
from vit_backbones.training.amp import PortableAmpOptimWrapper, use_amp

ADAMW = dict(type='AdamW', lr=1e-3, weight_decay=0.05)


class Seen(nn.Module):
    """A ViT and a layer, which notes the type that the layer gives."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.vit = backbone()
        self.layer = nn.Linear(self.vit.out_channels[0], 2)

    def forward(self, images):
        given = self.layer(self.vit(images)[-1].flatten(2).mean(-1))
        self.dtype = given.dtype
        return given.float().square().mean()


def steps(kind, **options):
    """Losses, weights before and after four steps, and the model."""
    model = Seen()
    config = dict(type=kind, optimizer=dict(ADAMW), clip_grad=dict(max_norm=0.1), **options)
    wrapper = build_optim_wrapper(model, config)
    wrapper.initialize_count_status(model, 0, 4)
    before = [p.detach().clone() for p in model.parameters()]
    images = torch.randn(4, 2, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    losses = []
    for image in images:
        with wrapper.optim_context(model):
            loss = model(image)
        wrapper.update_params(loss)
        losses.append(loss.item())
    return losses, before, model, wrapper


@pytest.mark.parametrize('counts', [1, 2])
def test_steps_are_near_those_in_float32(counts, no_gpu, monkeypatch):
    monkeypatch.setattr('mmengine.runner.amp.get_device', lambda: 'cpu')
    expected, before, whole, _ = steps('OptimWrapper', accumulative_counts=counts)
    losses, _, model, wrapper = steps('PortableAmpOptimWrapper', accumulative_counts=counts)
    assert (whole.dtype, model.dtype) == (torch.float32, torch.bfloat16)
    assert losses == pytest.approx(expected, rel=0.02)  # measured: 0.4 %
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    norms = [wrapper.message_hub.get_scalar('train/grad_norm').data[0][-4 // counts :]]
    assert len(norms[0]) == 4 // counts
    moved = [(b - a).norm() / (p - a).norm() for a, b, p in triples(before, whole, model)]
    assert torch.stack(moved).median().item() == pytest.approx(1, abs=0.05)


def triples(before, one, other):
    pairs = zip(before, one.parameters(), other.parameters(), strict=True)
    return [(a, b.detach(), c.detach()) for a, b, c in pairs if not torch.equal(a, b)]


@pytest.mark.slow
def test_a_recipe_trains_without_a_gpu_too(train, capsys):
    """Mask2Former's losses of the first step are those in float32, to the precision of bfloat16."""
    once = ['train_cfg.max_epochs=1', 'train_cfg.val_begin=9', 'model.auxiliary_iters=0']
    once += [f'default_hooks.{each}=None' for each in ('curves', 'pictures', 'checkpoint')]
    losses = []
    for more in ([], ['--amp']):
        options = [*QUICK, *once, 'default_hooks.logger.interval=1']
        assert train([MASK2FORMER, *more, '--cfg-options', *options]) == 0
        out = capsys.readouterr().out
        assert (f', mixed precision in {amp_dtype()}' in out) == bool(more)
        losses.append(float(re.search(r'\]\[1/2\].* loss: ([\d.]+)', out)[1]))
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


def test_a_training_resumes_with_and_without(train, tmp_path):
    config = write_toy_config(tmp_path, 'mixed')
    assert train([config, '--cfg-options', 'train_cfg.max_epochs=1']) == 0
    assert train([config, '--amp', '--resume', '--cfg-options', 'train_cfg.max_epochs=2']) == 0
    assert 'loss_scaler' not in torch.load('work_dirs/mixed/epoch_2.pth')['optimizer']
    assert train([config, '--resume']) == 0
    states = torch.load('work_dirs/mixed/epoch_3.pth')['optimizer']['state']
    assert {state['step'].item() for state in states.values()} == {9}


def _wrapper(**options):
    parameter = nn.Parameter(torch.zeros(1))
    return PortableAmpOptimWrapper(optimizer=torch.optim.SGD([parameter], lr=1.0), **options)


@pytest.mark.parametrize('scale', [{}, dict(scale=1.0), dict(scale=1024.0)])
def test_the_scale_of_a_gpu_does_not_reach_a_cpu(scale, no_gpu):
    """A scale of 1 is what MMEngine's wrapper writes in bfloat16, nothing what ours does."""
    wrapper = _wrapper()
    wrapper.load_state_dict(wrapper.state_dict() | dict(loss_scaler=scale))
    assert wrapper.loss_scaler.get_scale() == 1.0
    assert wrapper.loss_scaler.scale(torch.tensor(3.0)) == 3.0


@pytest.mark.parametrize(
    ('scale', 'kept'), [({}, 65536.0), (dict(scale=1.0), 65536.0), (dict(scale=1024.0), 1024.0)]
)
def test_a_scale_of_float16_goes_on(scale, kept):
    wrapper = _wrapper()
    wrapper.loss_scaler = torch.amp.GradScaler('cpu')
    if scale:
        scale = wrapper.loss_scaler.state_dict() | scale
    wrapper.load_state_dict(wrapper.state_dict() | dict(loss_scaler=scale))
    assert wrapper.loss_scaler.get_scale() == kept


def test_what_has_no_mixed_precision_is_refused(no_gpu, monkeypatch):
    config = Config(dict(optim_wrapper=dict(type='AmpOptimWrapper', dtype='float16')))
    line = r"^optim_wrapper\.dtype='float16' needs a CUDA GPU, .* bfloat16: leave dtype out$"
    with pytest.raises(ValueError, match=line):
        use_amp(config)
    with pytest.raises(ValueError, match=line):
        _wrapper(dtype='float16')
    with pytest.raises(ValueError, match="OptimWrapper only, the config has 'Other'"):
        use_amp(Config(dict(optim_wrapper=dict(type='Other'))))
    monkeypatch.setattr(amp, 'get_device', lambda: 'mps')
    line = "amp=True is for CUDA GPUs and CPUs, and this training runs on 'mps': train without it"
    with pytest.raises(ValueError, match=f'^{line}$'):
        use_amp(config)


@pytest.mark.parametrize(
    ('cuda', 'bf16', 'dtype'),
    [(False, False, 'bfloat16'), (True, True, 'bfloat16'), (True, False, 'float16')],
)
def test_the_type_is_that_of_the_device(cuda, bf16, dtype, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: cuda)
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda including_emulation: bf16)
    assert amp_dtype() == dtype


@pytest.mark.parametrize(('launcher', 'sharded'), [('none', None), ('pytorch', True)])
def test_shards_scale_the_loss_together(launcher, sharded):
    strategy = dict(type='ViTFSDPStrategy')
    config = Config(dict(optim_wrapper={}, strategy=strategy, launcher=launcher))
    use_amp(config)
    assert config.optim_wrapper.get('use_fsdp') is sharded


def test_the_check_names_the_type(check):
    code, lines = check('seg.py', 'optim_wrapper.type=PortableAmpOptimWrapper')
    assert code == 0
    assert [each for each in lines if 'mixed' in each] == [
        'note: optim_wrapper.type=PortableAmpOptimWrapper trains in mixed precision, here in '
        f'{amp_dtype()}'
    ]
