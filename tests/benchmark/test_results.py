"""The table and the picture of runs."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import load_tool
from matplotlib.text import Annotation
from PIL import Image

from vit_backbones.benchmark.results import markdown
from vit_backbones.pictures.scatter import draw_costs

RECORD = dict(
    config='/elsewhere/linear.py',
    date='2026-01-1',
    device='CPU',
    parameters=5_540_000,
    minutes=12.34,
    peak_memory_mib=1536,
    val_images_per_second=3.0,
    validations=[{'metrics': {'mIoU': 90.0}}, {'metrics': {'aAcc': 70.0, 'mIoU': 25.0}}],
)
DETECTED = {'coco/bbox_mAP': 0.5, 'coco/segm_mAP': 0.25, 'coco/segm_mAP_50': 0.9}


@pytest.fixture
def table(tmp_path, monkeypatch):
    """`table`, from a folder with two work dirs, `a` and `b`."""
    monkeypatch.chdir(tmp_path)
    for name, record in (
        ('a', RECORD),
        ('b', RECORD | dict(config='rcnn.py', validations=[{'metrics': DETECTED}])),
    ):
        Path(name).mkdir()
        Path(name, 'record.json').write_text(json.dumps(record))
    Path('a/linear.py').write_text("val_dataloader = dict(dataset=dict(data_root='/d/camvid/'))")
    Path('b/test.json').write_text(json.dumps(dict(test_images_per_second=7.0)))
    main = load_tool('benchmark').main
    return lambda *words: main(['table', *map(str, words)])


def test_work_dirs_give_a_row_a_metric(table, capsys):
    assert table('a', 'b', '--json', 'rows.json', '--out', 'rows.md') == 0
    rows = json.loads(Path('rows.json').read_text())
    assert [
        (r['config'], r['data'], r['metric'], r['value'], r['images_per_second']) for r in rows
    ] == [
        ('rcnn.py', None, 'bbox_mAP', 0.5, 7.0),
        ('rcnn.py', None, 'segm_mAP', 0.25, 7.0),
        ('linear.py', 'camvid val', 'mIoU', 0.25, 3.0),
    ]
    text = Path('rows.md').read_text()
    assert text in capsys.readouterr().out
    assert text.splitlines()[-1] == (
        '| `linear.py` | camvid val | mIoU | 0.250 | 5.5 M | 12 | 1.5 GiB | 3.0 | CPU | 2026-01-1 |'
    )


def test_panoptic_quality_is_told_on_0_to_1_as_the_others(table):
    found = RECORD | dict(validations=[{'metrics': {'coco_panoptic/PQ': 45.5}}])
    Path('a/record.json').write_text(json.dumps(found))
    assert table('a', '--json', 'rows.json') == 0
    (row,) = json.loads(Path('rows.json').read_text())
    assert (row['metric'], row['value']) == ('PQ', 0.455)


def test_files_of_the_other_commands_are_read(table):
    speed = dict(model='vit', size=[64, 96], dtype='fp32', mode='forward', latency_ms=10.0)
    worth = dict(model='vit', data='d val', metric='mIoU', value=0.5, date='then')
    environment = dict(device='a GPU', date='today')
    for name, rows in (('s', [speed | dict(images_per_second=100.0)]), ('q', [worth])):
        Path(f'{name}.json').write_text(json.dumps(dict(environment=environment, rows=rows)))
    assert table('s.json', 'q.json', '--json', 'rows.json') == 0
    worth, speed = json.loads(Path('rows.json').read_text())
    assert speed['data'] == 'noise 64x96, fp32, forward'
    assert (speed['hardware'], speed['date'], worth['date']) == ('a GPU', 'today', 'then')


def test_what_is_no_run_is_a_line_each(table, capsys):
    Path('empty').mkdir()
    Path('c.json').write_text('{"a": 1}')
    Path('d.json').write_text('{')
    Path('f.json').write_text('{"rows": [1]}')
    Path('other').mkdir()
    Path('other/record.json').write_text('{"validations": [{"metrics": {"mIoU": 1}}]}')
    assert table('a', 'empty', 'c.json', 'd.json', 'e.json', 'f.json', 'other') == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        'left out: empty: no record.json, which tools/train.py writes when a training ends',
        'left out: c.json: no results of tools/benchmark.py',
        'left out: d.json: no JSON',
        'left out: e.json: No such file or directory',
        'left out: f.json: no results of tools/benchmark.py',
        'left out: other: no results of tools/benchmark.py',
    ]


def test_nothing_but_such_is_an_error(table, capsys):
    Path('empty').mkdir()
    assert table('empty', '--out', 'rows.md') == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith('error: none of these')
    assert not Path('rows.md').exists()


def test_a_picture_without_a_value_is_refused_before_anything_is_written(table, capsys):
    Path('a/record.json').write_text(json.dumps(RECORD | dict(val_images_per_second=None)))
    assert table('a', '--plot', 'p.png', '--out', 'rows.md') == 2
    assert 'no run has both a value and images_per_second' in capsys.readouterr().err
    assert not Path('rows.md').exists()


def test_columns_that_no_row_fills_are_left_out():
    rows = [dict(model='m', value=0.5), dict(model='n', value=None, dims=3)]
    assert markdown(rows).splitlines() == [
        '| model | dims | value |',
        '| --- | --- | --- |',
        '| `n` | 3 |  |',
        '| `m` |  | 0.500 |',
    ]


def test_a_picture_has_a_panel_for_each_metric(table):
    assert table('a', 'b', '--plot', 'p.png') == 0
    with Image.open('p.png') as picture:
        assert picture.width > 2 * 400
        assert len(np.unique(np.asarray(picture).reshape(-1, 4), axis=0)) > 10


def test_a_format_that_matplotlib_does_not_write_is_refused(table, capsys):
    assert table('a', '--plot', 'p.xyz') == 2
    assert 'xyz' in capsys.readouterr().err


def test_names_cover_neither_each_other_nor_points():
    generator = np.random.default_rng(0)
    rows = [
        dict(config=f'method-{i}_x.py', data='d', metric='mIoU', value=v, images_per_second=s)
        for i, (v, s) in enumerate(generator.uniform(0.4, 0.6, (7, 2)).tolist())
    ]
    (ax,) = draw_costs(rows, 'images_per_second').axes
    names = [each for each in ax.get_children() if isinstance(each, Annotation)]
    assert sorted(each.get_text() for each in names) == [f'method-{i}' for i in range(7)]
    boxes = [each.get_window_extent() for each in names]
    points = ax.transData.transform(ax.collections[0].get_offsets())
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
        assert not any(box.contains(*point) for point in points)
