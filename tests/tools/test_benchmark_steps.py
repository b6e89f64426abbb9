"""`tools/benchmark.py step` and `growth`."""

import json
import re
from pathlib import Path

import pytest
from checked_configs import write_segments
from conftest import load_tool
from PIL import Image

from vit_backbones.benchmark import step_table
from vit_backbones.benchmark.step_parts import PARTS

SMALL = ['--size', '64x96', '--batch-size', '2', '--repeats', '1', '--device', 'cpu']


@pytest.fixture
def benchmark(folder):
    """`tools/benchmark.py`'s main, from a folder with two configs."""
    return load_tool('benchmark').main


def test_step__a_table_of_parts_that_sum_to_the_whole(benchmark, capsys):
    assert benchmark(['step', 'seg.py', *SMALL, '--out', 'step.json']) == 0
    record = json.loads(Path('step.json').read_text())
    *parts, whole = record['parts']
    assert [each['part'] for each in parts] == list(PARTS)
    assert sum(each['ms'] for each in parts) == pytest.approx(whole['ms'])
    assert sum(each['share'] for each in parts) == pytest.approx(1)
    assert sum(each['operators'] for each in parts) == whole['operators']
    assert sum(each['synchronisations'] for each in parts) == whole['synchronisations']
    assert whole['synchronisations'] == sum(whole['waits'].values())
    assert record['data'] == {'missing': 'not measured: no data'}
    assert record['peers'].keys() == {'explicit softmax'}
    assert (record['size'], record['batch_size'], record['dtype']) == ([64, 96], 2, 'fp32')
    out = capsys.readouterr().out
    assert '| part | ms | share | operators | synchronisations |' in out
    assert '| data | not measured: no data |  |  |  |' in out
    assert re.search(r'^\| whole \| [\d.]+ \| 100% \|', out, re.MULTILINE)
    assert re.search(r'^\| explicit softmax \| [\d.]+ \|', out, re.MULTILINE)


def test_step__data_are_loaded_and_preprocessed_where_they_are(benchmark, capsys):
    write_segments(1)
    workers = ['--cfg-options', 'train_dataloader.num_workers=3']
    assert benchmark(['step', 'seg.py', *SMALL, '--no-peers', '--out', 'step.json', *workers]) == 0
    data = json.loads(Path('step.json').read_text())['data']
    assert data.keys() == {'ms', 'workers'}
    assert (data['ms'] > 0, data['workers']) == (True, 3)
    assert 'the training has 3 workers beside the step.' in capsys.readouterr().out


def test_step__workers_are_those_of_a_training(benchmark, no_gpu):
    write_segments(1)
    text = Path('seg.py').read_text()
    Path('seg.py').write_text(re.sub(r'num_workers=\d+,? ?|persistent_workers=\w+,? ?', '', text))
    assert benchmark(['step', 'seg.py', *SMALL, '--no-peers', '--out', 'step.json']) == 0
    assert json.loads(Path('step.json').read_text())['data']['workers'] == 1


def test_step__amp_and_no_peers(benchmark):
    assert benchmark(['step', 'seg.py', *SMALL, '--amp', '--no-peers', '--out', 'step.json']) == 0
    record = json.loads(Path('step.json').read_text())
    assert (record['dtype'], record['peers'], record['absent']) == ('bf16', {}, {})


def test_step__a_gpus_columns_show_how_much_it_waits(monkeypatch):
    row = dict(part='whole', ms=10.0, share=1.0, kernels_ms=4.0, operators=7, synchronisations=2)
    more = dict(memory_mib=5.0, peers={}, absent={}, data=dict(ms=3.0, workers=2))
    lines = step_table.step_lines(dict(parts=[row], **more))
    assert lines[0] == (
        '| part | ms | share | kernels ms | waiting | operators | synchronisations |'
    )
    assert lines[2:4] == [
        '| data | 3.0 |  |  |  |  |  |',
        '| whole | 10.0 | 100% | 4.0 | 60% | 7 | 2 |',
    ]
    assert 'Data: a batch in one process; the training has 2 workers beside the step.' in lines


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['gone.py'], "config 'gone.py' does not exist"),
        (['bare.py'], 'bare.py: the config has no train_dataloader, and so no training step'),
        (['seg.py', '--device', 'cuda'], '--device cuda: PyTorch finds no GPU here'),
        (['seg.py', '--out', '.'], '. cannot be written: it is no file'),
        (['bn.py', '--batch-size', '1', '--size', '16'], 'a training step of 1 x 16x16 fails'),
    ],
)
def test_step__wrong_input_is_one_line(arguments, message, benchmark, capsys, no_gpu):
    text = Path('seg.py').read_text()
    Path('bare.py').write_text(text.replace('train_dataloader', 'other'))
    norm = "dict(type='GN', num_groups=1)"
    assert norm in text
    Path('bn.py').write_text(text.replace(norm, "dict(type='BN')"))
    assert benchmark(['step', *arguments]) == 2
    captured = capsys.readouterr()
    assert re.fullmatch(rf'error: .*{re.escape(message)}.*\n', captured.err)
    assert captured.out == ''


def test_step__images_that_are_no_whole_patches_are_padded(benchmark):
    odd = ['--size', '60x90', '--batch-size', '1', '--repeats', '1', '--no-peers']
    assert benchmark(['step', 'seg.py', *odd]) == 0


def test_step__an_interrupt_is_one_line(benchmark, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(step_table, 'times', interrupt)
    assert benchmark(['step', 'seg.py', *SMALL]) == 130
    assert capsys.readouterr().err == 'interrupted\n'


def test_growth__rows_exponents_record_and_picture(benchmark, capsys):
    wanted = ['growth', 'test_vit', '--kinds', 'global', 'windows', '--sizes', '64', '96x64']
    more = ['--batch-sizes', '2', '--repeats', '1', '--out', 'growth.json', '--plot', 'growth.png']
    assert benchmark([*wanted, *more]) == 0
    record = json.loads(Path('growth.json').read_text())
    assert [(each['kind'], each['size'], each['batch_size']) for each in record['rows']] == [
        (kind, size, 2) for kind in ('global', 'windows') for size in ([64, 64], [96, 64])
    ]
    assert [(each['kind'], each['of'], each['at']) for each in record['fits']] == [
        ('global', 'pixels', 'batch 2'),
        ('windows', 'pixels', 'batch 2'),
    ]
    assert Image.open('growth.png').width == 1100
    out = capsys.readouterr().out
    assert '| test_vit | windows | 96x64 | 2 |' in out
    assert '| test_vit | windows | pixels | batch 2 |' in out


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['test_vitt'], "unknown model_name 'test_vitt'"),
        (['test_vit', 'gone.py'], "config 'gone.py' does not exist"),
        (['test_vit', '--cfg-options', 'a=1'], '--cfg-options change configs, and none is'),
        (['test_vit', '--plot', '.'], '. cannot be written: it is no file'),
        (['test_vit', '--plot', 'p.xyz'], "p.xyz: no format of pictures is named '.xyz'; use one"),
    ],
)
def test_growth__wrong_input_is_one_line(arguments, message, benchmark, capsys):
    assert benchmark(['growth', *arguments, '--sizes', '64']) == 2
    captured = capsys.readouterr()
    assert re.fullmatch(rf'error: .*{re.escape(message)}.*\n', captured.err)
    assert captured.out == ''
