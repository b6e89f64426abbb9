"""The README's figures come from docs/results and from nowhere else."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def tables():
    spec = importlib.util.spec_from_file_location('tables', ROOT / 'docs/tables.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_holds_the_tables_of_the_results(tables):
    readme = (ROOT / 'README.md').read_text()
    assert tables.with_tables(readme) == readme


def test_every_result_names_its_config_command_hardware_and_date(tables):
    for path in (ROOT / 'docs/results').glob('*.json'):
        run = json.loads(path.read_text())
        assert (ROOT / run['config']).exists()
        assert run['config'] in run['command']
        assert run['data']
        assert run['hardware']
        assert run['date']
        assert run['minutes'] > 0


def test_rows_are_sorted_by_data_and_value(tables, tmp_path):
    run = dict(config='c.py', metric='mIoU', minutes=1, hardware='h', date='d', command='x c.py')
    for name, data, value in (('a', 'z', 0.1), ('b', 'y', 0.9), ('c', 'y', 0.2)):
        (tmp_path / f'{name}.json').write_text(json.dumps({**run, 'data': data, 'value': value}))
    rows = [line.split(' | ')[1:4:2] for line in tables.table(tmp_path).splitlines()[2:5]]
    assert rows == [['y', '0.200'], ['y', '0.900'], ['z', '0.100']]
