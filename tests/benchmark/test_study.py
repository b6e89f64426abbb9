"""A study's plan, its rows and intervals; the trainings themselves in tests/tools."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from vit_backbones.benchmark.study import finished, interval, read_plan

CONFIG = "val_dataloader = dict(dataset=dict(type='BaseSegDataset', data_root='data/camvid'))\n"


def plan(folder, *rows):
    path = folder / 'plan.json'
    path.write_text(json.dumps(rows))
    return path


def put(folder, value, **tested):
    """A work dir of a training that ended at a mIoU, and its test."""
    (folder / 'test').mkdir(parents=True)
    (folder / 'a.py').write_text(CONFIG)
    record = dict(
        config='configs/a.py', minutes=value, parameters=5, device='CPU', date='2026-11-28'
    )
    record |= dict(validations=[dict(metrics=dict(mIoU=0.0))], peak_memory_mib=7)
    (folder / 'record.json').write_text(json.dumps(record))
    test = dict(metrics=dict(mIoU=value) | tested, test_images_per_second=3.0)
    (folder / 'test/test.json').write_text(json.dumps(test))


def test_the_mean_of_seeds_with_the_interval_of_seeds_and_images(tmp_path):
    (entry,) = read_plan(plan(tmp_path, dict(config='a.py', seeds=3, head='linear')))
    assert finished([entry], tmp_path) == []
    for seed, value in enumerate((60.0, 62.0, 64.0)):
        put(entry.folder(tmp_path, seed), value, mIoU_se=1.0)
    (row,) = finished([entry], tmp_path)
    # Student's t of 2 degrees of freedom is 4.3027 at 95 %
    half = np.hypot(1.959964 * 0.01, 4.302653 * 0.02 / np.sqrt(3))
    assert row['interval'] == pytest.approx((0.62 - half, 0.62 + half), rel=1e-5)
    assert row['value'] == pytest.approx(0.62)
    assert row['values'] == pytest.approx([0.60, 0.62, 0.64])
    assert (row['seeds'], row['minutes'], row['images_per_second']) == (3, 62.0, 3.0)
    assert (row['head'], row['data'], row['config']) == ('linear', 'camvid val', 'a.py')


def test_one_seed_has_the_interval_of_its_images():
    assert interval([0.5], [0.01]) == pytest.approx((0.4804, 0.5196), abs=1e-4)


def test_a_row_without_standard_errors_has_no_interval(tmp_path):
    (entry,) = read_plan(plan(tmp_path, dict(config='a.py')))
    put(entry.folder(tmp_path, 0), 60.0)
    (row,) = finished([entry], tmp_path)
    assert (row['interval'], row['value']) == (None, 0.6)


def test_rows_that_differ_in_their_test_share_trainings_only(tmp_path):
    rows = [dict(config='a.py'), dict(config='a.py', test_options=['--cfg-options', 'a=1'])]
    other = dict(config='a.py', options=['--amp'])
    first, second, third = read_plan(plan(tmp_path, *rows, other))
    assert first.folder(tmp_path, 0) == second.folder(tmp_path, 0) != third.folder(tmp_path, 0)
    assert first.tested(tmp_path, 0) != second.tested(tmp_path, 0)
    assert [each.config for each in read_plan(tmp_path / 'plan.json', ['a'])] == ['a.py'] * 3


@pytest.mark.parametrize(
    ('rows', 'line'),
    [
        ([3], 'row 0 must be an object with a "config", got 3'),
        ([dict(seeds=2)], 'row 0 must be an object with a "config"'),
        ([dict(config='a.py', option=[])], 'row 0: "option" is near to "options"'),
        ([dict(config='a.py', seed=3)], '"seed" is near to "seeds": write that, or rename it'),
        ([dict(config=1)], '"config" must be a text, got 1'),
        ([dict(config='a.py', seeds=0)], '"seeds" must be at least 1, got 0'),
        ([dict(config='a.py', seeds=True)], '"seeds" must be a number, got true'),
        ([dict(config='a.py'), dict(config='b.py', options='--amp')], 'row 1: "options" must be'),
        ([dict(config='a.py', options=[1])], '"options" must be a list of texts, got [1]'),
        ([], 'no row matches'),
    ],
)
def test_a_wrong_plan_is_one_line(tmp_path, rows, line):
    path = plan(tmp_path, *rows)
    with pytest.raises(ValueError, match=re.escape(line)):
        read_plan(path)
    with pytest.raises(ValueError, match='no row matches b; it has a'):
        read_plan(plan(tmp_path, dict(config='a.py')), ['b'])


def test_a_plan_that_is_not_there_or_no_json_is_one_line(tmp_path):
    with pytest.raises(OSError, match='nope'):
        read_plan(tmp_path / 'nope.json')
    Path(tmp_path, 'plan.json').write_text('[')
    with pytest.raises(ValueError, match=r'plan\.json'):
        read_plan(tmp_path / 'plan.json')
