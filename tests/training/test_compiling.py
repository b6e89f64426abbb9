"""A compiled backbone and neck give the same, and a compiler that fails gives one line."""

import copy
import logging

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from redraw import backbone
from torch import nn
from toy_task import ToyModel, write_toy_config

from vit_backbones.necks import SimpleFeaturePyramid
from vit_backbones.training import compiling
from vit_backbones.training.compiling import CompileError, compile_parts
from vit_backbones.training.run import train as train_config


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    """The graphs of the forward and backward pass, without kernels for them."""
    torch._dynamo.reset()
    monkeypatch.setattr(logging.getLogger('torch.__trace'), 'disabled', True)  # pytest keeps all
    monkeypatch.setitem(compiling.OPTIONS, 'backend', 'aot_eager')


class Parts(BaseModel):
    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = backbone('test_vit', depth=2, img_size=32, **options)
        width = self.backbone.out_channels[0]
        self.neck = SimpleFeaturePyramid(width, 8, in_strides=16, out_strides=(8, 16))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return sum(each.square().mean() for each in self.neck(self.backbone(inputs)))


SLOW = pytest.mark.slow
LEARNED = dict(frozen_stages=1, with_cp=True, lora=dict(r=2))


@pytest.mark.parametrize(
    ('options', 'sizes'),
    [
        ({}, [(64, 96)]),
        pytest.param({}, [(64, 96), (80, 64), (96, 64), (64, 128)], marks=SLOW),
        pytest.param(LEARNED, [(64, 96), (80, 64)], marks=SLOW),
    ],
    ids=['one size', 'several sizes', 'frozen, LoRA, checkpointing'],
)
def test_losses_and_gradients_are_the_same(options, sizes):
    plain = Parts(**options).train()
    compiled = copy.deepcopy(plain)
    compile_parts(compiled)
    for size in sizes:
        images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
        losses = [each(images) for each in (plain, compiled)]
        torch.testing.assert_close(*losses)
        for loss in losses:
            loss.backward()
    assert list(plain.state_dict()) == list(compiled.state_dict())
    for (name, one), other in zip(plain.named_parameters(), compiled.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5, msg=name)
    averaged = copy.deepcopy(compiled)  # as EMA's
    assert averaged.backbone._compiled_call_impl is None
    assert compiled.backbone._compiled_call_impl is not None


def test_masks_are_warned_of(monkeypatch):
    lines = []
    monkeypatch.setattr(compiling, 'print_log', lambda line, **options: lines.append(line))
    compile_parts(Parts())
    assert lines == []
    compile_parts(Parts(mask_padding=True))
    assert lines == [
        'compile=True: with mask_padding=True each new combination of image sizes is compiled, and '
        'after eight the backbone runs uncompiled; leave one of the two out'
    ]


class ToyBackbone(nn.Module):
    """A module of our own: PyTorch's compiler leaves out `nn.Sequential` at the top."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(1, 4), nn.Linear(4, 1)

    def forward(self, values):
        return self.last(self.first(values).relu())


@MODELS.register_module()
class ToyParts(ToyModel):
    """A toy with a backbone before its layer."""

    def __init__(self):
        super().__init__()
        self.backbone = ToyBackbone()

    def forward(self, inputs, paths, mode='tensor'):
        means = torch.stack(inputs).float().mean((1, 2, 3))[:, None] / 255
        images = self.backbone(means)[:, :, None, None].expand(-1, -1, 5, 7) * 255
        return super().forward(list(images), paths, mode)


TOY = "model = dict(type='ToyParts')\ncustom_hooks = [dict(type='EMAHook')]"


def test_a_training_is_the_same__resumes_and_is_tested(train, evaluate, tmp_path):
    weights = []
    for name, flags in (('eager', []), ('compiled', ['--compile'])):
        config = write_toy_config(tmp_path, name, more=TOY)
        assert train([config, *flags, '--cfg-options', 'train_cfg.max_epochs=1']) == 0
        assert train([config, *flags, '--resume']) == 0
        weights.append(torch.load(f'work_dirs/{name}/epoch_3.pth'))
    for kind in ('state_dict', 'ema_state_dict'):
        assert list(weights[0][kind]) == list(weights[1][kind])
        for key, value in weights[0][kind].items():
            torch.testing.assert_close(weights[1][kind][key], value, msg=key)
    assert evaluate([config, 'work_dirs/compiled/epoch_3.pth', '--compile']) == 0


def broken(graph, inputs):
    raise RuntimeError('no C++ compiler\nand a trace of many lines')


@pytest.mark.parametrize('flags', [[], ['--no-sanity-check']], ids=['validation', 'training'])
def test_a_compiler_that_fails_is_one_line(flags, train, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(compiling.OPTIONS, 'backend', broken)
    config = write_toy_config(tmp_path, 'broken', more=TOY)
    line = (
        '--compile: PyTorch cannot compile the backbone or the neck, train without: '
        "backend='broken' raised: RuntimeError: no C++ compiler"
    )
    assert train([config, '--compile', *flags]) == 2
    assert capsys.readouterr().err == f'error: {line}\n'
    with pytest.raises(CompileError, match=r'^compile=True: .* no C\+\+ compiler$'):
        train_config(config, compile=True)


def test_pytorchs_advice_to_its_developers_is_left_out():
    model = Parts()
    compile_parts(model)
    found = 'InvalidCxxCompiler: No working C++ compiler found'
    advice = 'Set TORCHDYNAMO_VERBOSE=1 for the stack; for more set TORCH_LOGS="+dynamo"'
    error = torch._dynamo.exc.TorchDynamoException(f'{found}\n\n{advice}\n')
    assert compiling.compiler_line(error, model).endswith(f', train without: {found}')


def test_other_errors_stay_as_they_are(train, tmp_path):
    more = TOY.replace('EMAHook', "ToyStopHook', epoch=0, error='ZeroDivisionError")
    with pytest.raises(ZeroDivisionError, match='a bug'):
        train([write_toy_config(tmp_path, 'bug', more=more), '--compile'])


def test_strategies_are_refused(train, tmp_path, capsys):
    more = "runner_type = 'FlexibleRunner'\nstrategy = dict(type='SingleDeviceStrategy')"
    assert train([write_toy_config(tmp_path, 'strategy', more=more), '--compile']) == 2
    assert capsys.readouterr().err == (
        "error: --compile is not for runner_type='FlexibleRunner', whose strategies wrap parts of "
        'the model: train without it\n'
    )
