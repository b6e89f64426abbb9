"""What work dirs hold, on ones that are written out."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from vit_backbones.evaluation.runs import Run, checkpoint_of, config_of, find_runs, read_history
from vit_backbones.pictures.curves import compare_curves


def log(work_dir, stamp, lines):
    """Write what MMEngine logs after one start."""
    path = Path(work_dir) / stamp / 'vis_data/scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text(''.join(f'{json.dumps(line)}\n' for line in lines))


def trained(step, loss, length=10):
    epoch = (step - 1) // length + 1
    return dict(loss=loss, epoch=epoch, iter=step, step=step, lr=0.1)


def validated(epoch, value):
    return dict(mIoU=value, time=1.0, data_time=1.0, step=epoch)


@pytest.fixture
def resumed(tmp_path):
    """A run that was stopped in its third epoch and goes on after the second."""
    losses = [trained(step, 9 - step / 5) for step in (5, 10, 15, 20, 25)]
    log(tmp_path, '20260101_000000', [*losses[:2], validated(1, 30.0), *losses[2:]])
    again = [trained(25, 2.5), trained(30, 2.0), validated(3, 50.0)]
    log(tmp_path, '20260102_000000', again)
    return Run(tmp_path, 'resumed')


def test_history__starts_are_joined_and_what_is_done_again_counts_once(resumed):
    history = read_history(resumed)
    np.testing.assert_array_equal(history.steps, [5, 10, 15, 20, 25, 30])
    np.testing.assert_allclose(history.losses, [8, 7, 6, 5, 2.5, 2])
    assert history.epoch_length == 10
    values = [(each['iter'], each['metrics']) for each in history.validations]
    assert values == [(10, {'mIoU': 30.0}), (30, {'mIoU': 50.0})]


def test_history__a_start_anew_replaces_everything(resumed):
    log(resumed.path, '20260103_000000', [trained(5, 1.0)])
    history = read_history(resumed)
    assert (history.steps.tolist(), history.validations) == ([5], [])


def test_history__a_line_cut_short_is_passed_over(resumed):
    file = resumed.path / '20260102_000000/vis_data/scalars.json'
    file.write_text(file.read_text()[:-8])
    assert [each['iter'] for each in read_history(resumed).validations] == [10]


def test_history__the_record_counts_unless_the_log_goes_further(resumed):
    def record(*steps):
        entries = [dict(epoch=i // 10, iter=i, metrics=dict(mIoU=float(i))) for i in steps]
        (resumed.path / 'record.json').write_text(json.dumps(dict(validations=entries)))
        return [each['metrics']['mIoU'] for each in read_history(resumed).validations]

    assert record(10) == [30.0, 50.0]
    assert record(10, 30) == [10.0, 30.0]


def test_history__of_iterations_alone(tmp_path):
    lines = [dict(loss=1.0, iter=50, step=50), dict(mIoU=40.0, step=50)]
    log(tmp_path, '20260101_000000', lines)
    history = read_history(Run(tmp_path, 'a'))
    assert history.epoch_length is None
    assert history.validations == [{'iter': 50, 'metrics': {'mIoU': 40.0}}]


def test_curves__over_epochs_one_colour_a_run(resumed):
    history = read_history(resumed)
    figure = compare_curves({'a': history, 'b': history._replace(losses=2 * history.losses)})
    left, right = figure.axes
    np.testing.assert_allclose(left.lines[1].get_ydata(), [16, 14, 12, 10, 5, 4])
    np.testing.assert_allclose(right.lines[0].get_xydata(), [[1, 30], [3, 50]])
    assert left.get_xlabel() == 'epoch'
    assert [line.get_color() for line in left.lines] == [line.get_color() for line in right.lines]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ['a: 50.0 %', 'b: 50.0 %']


def test_curves__over_iterations_where_a_run_counts_no_epochs(resumed):
    history = read_history(resumed)
    figure = compare_curves({'a': history, 'b': history._replace(epoch_length=None)})
    np.testing.assert_allclose(figure.axes[1].lines[0].get_xdata(), [10, 30])


def test_curves__of_other_metrics_have_a_panel_each(resumed):
    history = read_history(resumed)
    other = history._replace(validations=[dict(iter=10, metrics={'coco/segm_mAP': 0.1})])
    figure = compare_curves({'a': history, 'b': other})
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ['training loss', 'validation, mIoU', 'validation, segm_mAP']
    np.testing.assert_allclose(figure.axes[2].lines[0].get_ydata(), [0.1])


def test_runs__what_a_pattern_finds_beside_them_is_left_out(resumed, tmp_path):
    (tmp_path / 'features').mkdir()
    (tmp_path / 'notes.log').touch()
    beside, reasons = [tmp_path / 'features', tmp_path / 'notes.log'], []
    runs = find_runs([*beside, resumed.path], reasons.append)
    assert [run.path for run in runs] == [resumed.path]
    assert [reason.split("'")[:2] for reason in reasons] == [['', str(each)] for each in beside]
    with pytest.raises(ValueError, match='none of these 2 is a work dir'):
        find_runs(beside)


def test_runs__of_the_same_name_are_told_apart(tmp_path):
    for name in ('a/run', 'b/run'):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / 'config.py').touch()
    runs = find_runs([tmp_path / 'a/run', tmp_path / 'b/run'])
    assert [run.name for run in runs] == ['a_run', 'b_run']
    with pytest.raises(ValueError, match='given twice'):
        find_runs([tmp_path / 'a/run', tmp_path / 'b/../a/run'])


def test_config__of_several_the_recorded_one(tmp_path):
    for name in ('a.py', 'b.py'):
        (tmp_path / name).touch()
    run = Run(tmp_path, 'run')
    with pytest.raises(ValueError, match=re.escape('holds 2 configs (a.py, b.py): leave there')):
        config_of(run)
    (tmp_path / 'record.json').write_text(json.dumps(dict(config='configs/b.py')))
    assert config_of(run).name == 'b.py'


def test_checkpoint__the_best_one_else_the_last_whole_one(tmp_path):
    run = Run(tmp_path, 'run')
    (tmp_path / 'epoch_9.pth').write_bytes(b'half')
    with pytest.raises(ValueError, match='no whole checkpoint'):
        checkpoint_of(run)
    for i, name in enumerate(['best_mIoU_epoch_1', 'epoch_1', 'epoch_2']):
        torch.save({}, tmp_path / f'{name}.pth')
        os.utime(tmp_path / f'{name}.pth', (i, i))
    assert checkpoint_of(run).name == 'best_mIoU_epoch_1.pth'
    (tmp_path / 'best_mIoU_epoch_1.pth').unlink()
    assert checkpoint_of(run).name == 'epoch_2.pth'
