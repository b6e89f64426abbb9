"""A loss or gradient that is not finite stops a training with what is needed to find out why."""

import re
from pathlib import Path

import pytest
import torch
from conftest import load_tool
from mmengine.registry import MODELS
from slow import few
from toy_task import ToyModel, write_toy_config

from vit_backbones.training.non_finite import NonFiniteError
from vit_backbones.training.run import train


@MODELS.register_module()
class NanModel(ToyModel):
    """Divides by zero for one image; `by='gradient'` keeps its loss finite."""

    def __init__(self, by='loss'):
        super().__init__()
        self.by, self.ratio = by, torch.nn.Identity()

    def forward(self, inputs, paths, mode='tensor'):
        found = super().forward(inputs, paths, mode)
        if mode != 'loss' or not any(path.endswith('train3.png') for path in paths):
            return found
        weight = self.linear.weight.sum()
        if self.by == 'gradient':
            return dict(loss=found['loss'] + (weight - weight.detach()).sqrt())
        return dict(loss=self.ratio(found['loss'] / (weight - weight.detach())))


ADAMW = ''
SGD = "optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05))"


def stopped(folder, by, more):
    model = f"model = dict(type='NanModel', by={by!r})\ncustom_imports = dict(imports=['toy_task'])"
    config = write_toy_config(folder, 'nan', more=f'{more}\n{model}')
    with pytest.raises(NonFiniteError) as error:
        train(config, work_dir='w')
    return config, str(error.value)


@pytest.mark.parametrize('optimizer', few([ADAMW, SGD], ADAMW), ids=['fused', 'plain'])
@pytest.mark.parametrize('by', ['loss', 'gradient'])
def test_it_stops_with_weights_of_before__and_replays(by, optimizer, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config, line = stopped(tmp_path, by, optimizer)
    (file,) = Path('w').glob('non_finite_iter_*.pth')
    number = int(re.search(r'\d+', file.stem)[0])
    what = 'loss is inf' if by == 'loss' else 'all losses are finite'
    layer = 'ratio (Identity)' if by == 'loss' else 'no layer (the losses or their gradients)'
    assert line.startswith(f'iteration {number}: {what}; first output that is not finite: {layer}')
    images, largest = re.search(r'; images: (.*); largest gradients: (.*?); to run', line).groups()
    assert len(images.split(', ')) == 2
    assert 'train3.png' in images
    assert re.match('linear.weight (nan|inf)', largest)
    assert line.endswith(f'to run it again: {file} with replay=...')
    weights = torch.load(file, weights_only=True)['state_dict']
    assert all(bool(each.isfinite().all()) for each in weights.values())
    assert load_tool('train').main([config, '--work-dir', 'again', '--replay', str(file)]) == 0
    again = capsys.readouterr().out.splitlines()[-1]
    assert again.startswith('done: ' + line.split('; to run')[0])


@pytest.mark.parametrize('optimizer', few([ADAMW, SGD], SGD), ids=['fused', 'plain'])
def test_steps_are_left_out_as_often_as_asked(optimizer, tmp_path, monkeypatch, capsys):
    """Three epochs meet the bad image three times; weights stay finite."""
    monkeypatch.chdir(tmp_path)
    hooks = "default_hooks.update(non_finite=dict(type='NonFiniteHook', max_skips={}))"
    model = "model = dict(type='NanModel')"
    more = [optimizer, hooks.format(3), model]
    train(write_toy_config(tmp_path, 'skips', more='\n'.join(more)), work_dir='w')
    said = capsys.readouterr().out
    line = r'gradients are not finite, and its step is left out \((\d) of max_skips=3\)'
    assert re.findall(line, said) == ['1', '2', '3']
    weights = torch.load('w/epoch_3.pth', weights_only=True)['state_dict']
    assert all(bool(each.isfinite().all()) for each in weights.values())
    more = [optimizer, hooks.format(2), model]
    with pytest.raises(NonFiniteError, match='loss is inf'):
        train(write_toy_config(tmp_path, 'fewer', more='\n'.join(more)), work_dir='fewer')
