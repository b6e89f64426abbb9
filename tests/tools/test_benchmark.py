import json
import re
from pathlib import Path

import pytest
from conftest import load_tool

SPEED = ['speed', 'test_vit', '--sizes', '64x96', '--repeats', '1']


FEW_BOXES = (
    'model.train_cfg.rpn_proposal.max_per_img=9',
    'model.train_cfg.rcnn.sampler.num=9',
    'model.test_cfg.rpn.max_per_img=3',
)


@pytest.fixture
def benchmark(folder):
    """`tools/benchmark.py`'s main, from a folder with two configs."""
    return load_tool('benchmark').main


def test_speed__one_row_a_combination_and_a_whole_record(benchmark, capsys):
    more = ['--dtype', 'fp32', 'bf16', '--mode', 'forward', 'train']
    peers = ['--peers', 'timm', 'torchvision']
    assert benchmark([*SPEED, *more, *peers, '--out', 'new/speed.json']) == 0
    record = json.loads(Path('new/speed.json').read_text())
    assert record['environment'].keys() >= {'date', 'device', 'threads', 'versions', 'repeats'}
    rows = record['rows']
    assert [(r['dtype'], r['mode']) for r in rows] == [
        ('fp32', 'forward'),
        ('fp32', 'train'),
        ('bf16', 'forward'),
        ('bf16', 'train'),
    ]
    for row in rows:
        assert (row['model'], row['size'], row['batch_size']) == ('test_vit', [64, 96], 1)
        assert row['absent'] == {'torchvision': 'takes only squares'}
        assert row['peers']['timm'].keys() == {'latency_ms', 'peak_memory_mib', 'times_ours'}
        assert row['times_floor'] == pytest.approx(row['latency_ms'] / row['floor_ms'])
        assert row['images_per_second'] == pytest.approx(1e3 / row['latency_ms'])
        assert row['parameters'] == 301376
        assert row['peak_memory_mib'] > 0
    forward, train = (row['flops'] for row in rows[:2])
    assert 2.5 * forward < train < 3.5 * forward
    out = capsys.readouterr().out
    assert len(re.findall(r'^\| test_vit \| 64x96 \|', out, re.MULTILINE)) == 4
    assert 'test_vit: not beside torchvision, which takes only squares' in out


def test_speed__peers_do_as_much_work_where_images_are_padded(benchmark):
    odd = ['speed', 'test_vit', '--sizes', '60x90', '--repeats', '1']
    assert benchmark([*odd, '--peers', 'timm', '--out', 'speed.json']) == 0
    (row,) = json.loads(Path('speed.json').read_text())['rows']
    assert row['absent'] == {}


@pytest.mark.parametrize('config', ['seg.py', pytest.param('det.py', marks=pytest.mark.slow)])
def test_speed__whole_models_of_configs_predict_and_train(config, benchmark):
    wanted = ['speed', config, '--sizes', '64x96', '--repeats', '1', '--mode', 'forward', 'train']
    few = ['--cfg-options', *FEW_BOXES] if config == 'det.py' else []
    assert benchmark([*wanted, '--peers', 'timm', '--out', 'speed.json', *few]) == 0
    forward, train = json.loads(Path('speed.json').read_text())['rows']
    assert 0 < forward['flops'] < train['flops']
    assert 'not with whole models' in forward['absent']['timm']


def test_speed__cfg_options_freeze_the_backbone(benchmark):
    train = ['speed', 'seg.py', '--sizes', '64x96', '--repeats', '1', '--mode', 'train', '--peers']
    flops = []
    for stages in (-1, 6):
        option = f'model.backbone.frozen_stages={stages}'
        assert benchmark([*train, '--out', 'speed.json', '--cfg-options', option]) == 0
        flops.append(json.loads(Path('speed.json').read_text())['rows'][0]['flops'])
    assert flops[1] < 0.6 * flops[0]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['test_vitt'], r"unknown model_name 'test_vitt'"),
        (['test_vit', '--dtype', 'fp16', '--device', 'cpu'], '--dtype fp16 is for GPUs'),
        (['test_vit', '--device', 'tpu'], 'tpu'),
        (['test_vit', '--source', 'timn'], 'timn'),
        (['none.py'], "config 'none.py' does not exist"),
        (['test_vit', '--out', '.'], '. cannot be written: it is no file'),
        (
            ['test_vit', '--out', 'seg.py/a.json'],
            'seg.py/a.json cannot be written: Not a',
        ),
        (['test_vit', '--cfg-options', 'a=1'], '--cfg-options change configs, and none is'),
        (['test_vit', 'none.py'], "config 'none.py' does not exist"),
    ],
)
def test_speed__wrong_input_is_one_line(arguments, message, benchmark, capsys):
    assert benchmark(['speed', *arguments]) == 2
    captured = capsys.readouterr()
    assert re.fullmatch(rf'error: .*{message}.*\n', captured.err)
    assert captured.out == ''


@pytest.mark.parametrize('size', ['0', '64x', '64x64x64', 'big', '-3'])
def test_speed__wrong_size_is_refused(size, benchmark, capsys):
    with pytest.raises(SystemExit, match='2'):
        benchmark(['speed', 'test_vit', f'--sizes={size}'])
    assert f"'{size}' is neither a side nor HEIGHTxWIDTH" in capsys.readouterr().err


def test_targets__unknown_case_is_one_line(benchmark, capsys):
    assert benchmark(['targets', 'smal']) == 2
    assert re.fullmatch(r"error: no case 'smal'; .*mean 'small'\?\n", capsys.readouterr().err)
