"""The figures of the README and the manual come from docs/results and from nowhere else."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RUN = dict(
    config='configs/c.py',
    data='y',
    metric='mIoU',
    value=0.25,
    parameters=5_540_000,
    minutes=12.34,
    peak_memory_mib=1536,
    images_per_second=7.0,
    hardware='h',
    date='d',
    command='python tools/train.py configs/c.py',
)


@pytest.fixture(scope='module')
def tables():
    spec = importlib.util.spec_from_file_location('tables', ROOT / 'docs/tables.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_and_manual_hold_the_tables_of_the_results(tables):
    assert tables.main(['check']) == 0


def test_every_table_stands_in_one_file(tables):
    assert ROOT / 'README.md' in tables.FILES
    for name in tables.BLOCKS:
        start, end = tables.marks(name)
        holders = [path for path in tables.FILES if start in path.read_text()]
        assert len(holders) == 1
        assert holders[0].read_text().count(end) == 1


def test_check_names_a_file_with_an_old_table(tables, tmp_path, monkeypatch, capsys):
    start, end = tables.marks('models')
    page = tmp_path / 'page.md'
    page.write_text(f'a\n{start}\nold\n{end}\nb\n')
    monkeypatch.setattr(tables, 'DOCS', tmp_path / 'docs')
    monkeypatch.setattr(tables, 'FILES', (page,))
    assert tables.main(['check']) == 1
    assert 'page.md' in capsys.readouterr().out
    assert tables.main([]) == 0
    assert page.read_text() == f'a\n{start}\n{tables.totals()}\n{end}\nb\n'


def test_every_result_is_whole_and_names_its_config(tables):
    for path in (ROOT / 'docs/results').glob('*.json'):
        run = json.loads(path.read_text())
        assert run.keys() == RUN.keys()
        assert all(run.values())
        assert (ROOT / run['config']).exists()
        assert run['config'] in run['command']


def test_rows_are_sorted_by_data_and_value(tables, tmp_path):
    for name, data, value in (('a', 'z', 0.1), ('b', 'y', 0.9), ('c', 'y', 0.2)):
        (tmp_path / f'{name}.json').write_text(json.dumps(RUN | dict(data=data, value=value)))
    rows = [line.split(' | ')[1:4:2] for line in tables.table(tmp_path).splitlines()[2:5]]
    assert rows == [['y', '0.200'], ['y', '0.900'], ['z', '0.100']]


def test_a_row_has_units(tables, tmp_path):
    (tmp_path / 'a.json').write_text(json.dumps(RUN))
    row = tables.table(tmp_path).splitlines()[2]
    assert row == '| `c.py` | y | mIoU | 0.250 | 5.5 M | 12 | 1.5 GiB | 7.0 | h | d |'


@pytest.mark.parametrize('tested', [False, True])
def test_a_result_is_what_was_recorded(tables, tmp_path, tested):
    record = dict(
        config='/elsewhere/c.py',
        date='d',
        parameters=5_540_000,
        minutes=12.34,
        peak_memory_mib=1536,
        val_images_per_second=3.0,
        validations=[{'metrics': {'mIoU': 90.0}}, {'metrics': {'aAcc': 70.0, 'mIoU': 25.0}}],
    )
    (tmp_path / 'record.json').write_text(json.dumps(record))
    if tested:
        (tmp_path / 'test.json').write_text(json.dumps(dict(test_images_per_second=7.0)))
    told = {key: RUN[key] for key in ('config', 'data', 'metric', 'hardware')}
    assert tables.result(tmp_path, **told) == RUN | dict(images_per_second=7.0 if tested else 3.0)


BACKBONES = sorted((ROOT / 'configs/_base_/backbones').glob('*.py'))


@pytest.mark.parametrize('path', BACKBONES, ids=lambda path: path.stem)
def test_the_file_of_a_backbone_says_where_its_weights_come_from(tables, path):
    row, text = tables.weights_of(path), path.read_text()
    found, size = row['found'], row['file'] and f'{row["file"]}, '
    assert f'# Weights ({size}{found.licence}): {found.page}\n' in text
    (command,) = re.findall(r'hf download (?:.*\\\n)?.*', text)
    words = set(re.sub(r'[\\#\s]+', ' ', command).split())
    assert words == set(found.command().split())
    moved = re.findall(r'mv \S+ (\S+)', text)
    place = 'weights' if found.file.endswith(f'/{row["own"]}') else f'weights/{row["own"]}'
    assert moved == ([place] if 'checkpoint=' in text else [])


def test_parameters_and_licences_are_those_of_the_readme(tables):
    lines = {line.split('`')[1]: line for line in tables.weights().splitlines()[2:]}
    readme = (ROOT / 'README.md').read_text()
    for path in BACKBONES:
        cells = re.search(rf'^\| `{path.stem}` \|.*$', readme, re.MULTILINE)[0].split(' | ')
        licence = re.sub(r'\[([^]]+)\]\(.*', r'\1', cells[3])
        assert f' | {cells[2]} | ' in lines[path.stem]
        assert f' | {licence} | ' in lines[path.stem]


ROWS = [
    row
    for path in sorted((ROOT / 'docs/results/reliability').glob('*.json'))
    for row in json.loads(path.read_text())
]


@pytest.mark.parametrize('row', ROWS, ids=range(len(ROWS)))
def test_each_row_on_reliability_is_whole_and_names_a_test_that_exists(row):
    assert row.keys() == {'fault', 'promise', 'command', 'seen'}
    assert '|' not in ''.join(row.values())
    assert row['seen']
    assert 'NOT YET' not in row['seen']
    named = re.findall(r'(tests/[\w/.]*)(?:::(\w+))?', row['command'])
    assert bool(named) == row['command'].startswith('pytest ')
    for place, name in named:
        assert (ROOT / place).exists()
        assert not name or f'def {name}(' in (ROOT / place).read_text()
