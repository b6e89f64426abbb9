"""Folders and configs of any name: train, test, predict, and go on after Ctrl-C in them."""

import shlex
from pathlib import Path

import pytest
from conftest import load_tool
from own_files import SEGMENTER, write_masks
from toy_task import write_toy_config

FOLDERS = [
    'it\'s "quoted" $HOME `x`; touch ran\nnew line é',
    *(
        pytest.param(each, marks=pytest.mark.slow)
        for each in ('sp ace', 'new\nline', '-dash', '日本 %s {0}', '{{ fileDirname }} {{$HOME:x}}')
    ),
]


@pytest.fixture(params=FOLDERS)
def place(request, tmp_path, monkeypatch):
    place = tmp_path / request.param
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def test_train_test_and_predict(place, capsys):
    (place / "my 'cfg.py").write_text(SEGMENTER)
    write_masks(place / 'da ta')
    data, runs = str(place / 'da ta'), str(place / 'w d')
    train = load_tool('train').main
    assert train([str(place / "my 'cfg.py"), '--dataset', data, '--work-dir', runs]) == 0
    config, checkpoint = str(place / "w d/my 'cfg.py"), str(place / 'w d/epoch_1.pth')
    shown = ['--show-dir', str(place / 's d'), '--work-dir', str(place / 't d')]
    assert load_tool('test').main([config, checkpoint, *shown]) == 0
    images, out = str(place / 'da ta/images'), str(place / 'o d')
    assert load_tool('predict').main([config, checkpoint, images, '--out', out]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1].endswith('pictures')
    assert len(list((place / 's d').glob('*.png'))) == 3
    assert len(list((place / 'o d/masks').glob('*.png'))) == 11
    assert not list(place.parent.rglob('ran'))


def test_the_command_to_go_on_is_quoted(place, capsys):
    more = "custom_hooks = [dict(type='ToyStopHook', epoch=1)]"
    config = write_toy_config('.', "to'y", more=more)
    train = load_tool('train').main
    assert train([config, '--work-dir', str(place / 'w d')]) == 130
    line = capsys.readouterr().err.rstrip('\n')
    _, found, command = line.partition(', continue with: ')
    assert found
    words = shlex.split(command)
    assert words[2:] == [config, '--work-dir', str(place / 'w d'), '--resume']
    assert Path(words[1]).name == 'train.py'
    assert train([*words[2:], '--cfg-options', 'custom_hooks=[]']) == 0
    assert (place / 'w d/epoch_3.pth').exists()
