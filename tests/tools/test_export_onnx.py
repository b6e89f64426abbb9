"""`tools/export_onnx.py` through its main."""

import re
from pathlib import Path

import pytest
import torch
from conftest import load_tool

main = load_tool('export_onnx').main
MODEL = ('--model', 'test_vit', '--random-weights', '0')
SEGMENTER = """
model = dict(
    type='mmseg.EncoderDecoder',
    backbone=dict(type='ViTFeatBackbone', model_name='test_vit', out_indices=0, img_size=64),
    {neck}
)
"""
NECK = "neck=dict(type='SimpleFeaturePyramid', in_channels=64, out_channels=8),"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder with two configs."""
    monkeypatch.chdir(tmp_path)
    Path('neck.py').write_text(SEGMENTER.format(neck=NECK))
    Path('none.py').write_text(SEGMENTER.format(neck=''))
    Path('empty.py').touch()


def test_it_tells_what_goes_in_and_out(capsys):
    options = ('--out', 'a/vit.pt', '--size', '40', '64', '--layers', '0', '--pool', 'cls')
    assert main([*MODEL, *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith('a/vit.pt: ')
    assert lines[0].endswith(' MB, TorchScript')
    assert lines[1:3] == ['  images  1 x 3 x 40 x 64', '  layer_0 1 x 64']
    number = r'\d\.\de[-+]\d\d'
    line = f'largest difference from PyTorch {number}; {number} of the largest value of its output'
    assert re.fullmatch(f'{line}, 1e-04 allowed', lines[3])


def test_the_neck_has_the_weights_of_the_checkpoint():
    options = ['--config', 'neck.py', '--with-neck', '--out', 'a.pt']
    assert main([*options, '--random-weights', '3']) == 0
    trained = torch.jit.load('a.pt').state_dict()
    torch.save({'state_dict': trained}, 'trained.pth')
    assert main([*options, '--checkpoint', 'trained.pth']) == 0
    again = torch.jit.load('a.pt').state_dict()
    assert [name for name in again if name.startswith('neck.')]
    assert all(torch.equal(value, trained[name]) for name, value in again.items())


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ((*MODEL, '--out', 'vit.bin'), "'vit.bin': a file to export ends in .onnx, .pt, .pt2"),
        (('--model', 'test_vit', '--out', 'v.pt'), 'features of random weights help nobody'),
        ((*MODEL, '--out', 'v.pt', '--layers', '9'), 'out_indices must be in [-6, 5]'),
        ((*MODEL, '--out', 'v.pt', '--size', '4', '64'), 'size 4x64 is less than one patch'),
        ((*MODEL, '--out', 'v.onnx', '--opset', '7'), 'opset must be in [17, 20], got 7'),
        ((*MODEL, '--out', 'v.pt', '--cfg-options', 'a=1'), '--cfg-options change a config'),
        (
            ('--config', 'empty.py', '--random-weights', '0', '--with-neck', '--out', 'v.pt'),
            'empty.py: its model has no neck',
        ),
        ((*MODEL, '--out', 'v.pt', '--with-neck'), 'a neck is part of a config: give --config'),
        (
            (*MODEL, '--out', 'neck.py/v.pt', '--size', '32', '32'),
            'written: Not a directory',
        ),
    ],
)
def test_mistakes_get_one_line(capsys, options, message):
    assert main(options) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert sorted(path.name for path in Path().iterdir()) == ['empty.py', 'neck.py', 'none.py']


@pytest.mark.parametrize(
    ('config', 'weights', 'message'),
    [
        ('none.py', ('--random-weights', '0'), 'none.py: its model has no neck'),
        ('neck.py', ('--checkpoint', 'vit.pth'), 'vit.pth holds no weights of a neck: give --chec'),
        ('neck.py', ('--pretrained',), 'no --checkpoint holds no weights of a neck: give --chec'),
    ],
)
def test_necks_without_weights_are_refused(capsys, config, weights, message):
    torch.save({'backbone.vit.x': torch.zeros(1)}, 'vit.pth')
    assert main(['--config', config, *weights, '--with-neck', '--out', 'v.pt']) == 2
    assert message in capsys.readouterr().err


def test_maps_of_the_config_go_into_its_neck(capsys):
    with pytest.raises(SystemExit, match='2'):
        main(['--config', 'neck.py', '--with-neck', '--pool', 'avg', '--out', 'v.pt'])
    assert 'no --layers, --out-type or --pool' in capsys.readouterr().err
