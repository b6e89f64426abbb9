"""`tools/benchmark.py study`, on trainings of a second, with a stop between."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY
from toy_task import write_toy_config

ENV = os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(REPOSITORY / 'tests')}


def study(folder, *arguments):
    command = [sys.executable, str(REPOSITORY / 'tools/benchmark.py'), 'study', *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_study_goes_on_after_ctrl_c_and_does_nothing_twice(tmp_path):
    more = "default_hooks['checkpoint'].update(by_epoch=False, interval=1)\n"
    more += "train_cfg['max_epochs'] = 15\n"
    config = write_toy_config(tmp_path, 'toy', more=more)
    (tmp_path / 'nope.py').write_text("model = dict(type='Nope')\n")
    rows = [dict(config=config, seeds=2), dict(config='nope.py')]
    (tmp_path / 'plan.json').write_text(json.dumps(rows))
    first = study(tmp_path, 'plan.json', '--out', 'out.json')
    root = tmp_path / 'work_dirs/study'
    while not list(root.glob('toy-*/seed_0/iter_*.pth')):
        assert first.poll() is None
        time.sleep(0.05)
    (folder,) = root.glob('toy-*/seed_0')
    first.send_signal(signal.SIGINT)
    out, err = first.communicate()
    assert (first.returncode, err.splitlines()[-1]) == (130, 'stopped: the same command goes on')
    assert not (folder / 'record.json').exists()

    second = study(tmp_path, 'plan.json', '--out', 'out.json')
    out, err = second.communicate()
    assert second.returncode == 1, err
    assert '--seed 0 --resume' in out
    assert 'train nope.py' in err.splitlines()[-1]
    assert err.endswith('exit code 2\n')
    (row,) = json.loads((tmp_path / 'out.json').read_text())['rows']
    assert (row['seeds'], row['metric'], row['interval']) == (2, 'mIoU', None)

    third = study(tmp_path, 'plan.json', '--rows', 'toy')
    out, _ = third.communicate()
    assert third.returncode == 0
    assert 'vit_backbones' not in out  # nothing was started


@pytest.mark.parametrize(
    ('arguments', 'line'),
    [
        (['nope.json'], 'error: No such file or directory: nope.json'),
        (['plan.json'], "error: plan.json: config 'a.py' does not exist (looked from"),
        (['plan.json', '--report'], 'error: no row of plan.json has a result in work_dirs/study'),
    ],
)
def test_what_is_not_there_is_one_line(tmp_path, arguments, line, monkeypatch, capsys):
    import benchmark

    monkeypatch.chdir(tmp_path)
    Path('plan.json').write_text(json.dumps([dict(config='a.py')]))
    assert benchmark.main(['study', *arguments]) == 2
    assert capsys.readouterr().err.startswith(line)


def test_a_row_may_start_from_the_work_dir_of_another(tmp_path, monkeypatch):
    import _benchmark_runs

    from vit_backbones.benchmark.study import Entry

    started = []
    monkeypatch.setattr(_benchmark_runs, '_ran', lambda given, failed: started.append(given))
    options = ['--cfg-options', 'model.backbone.checkpoint={work_dirs}/a-1/seed_0/epoch_1.pth']
    _benchmark_runs.run_entry(Entry('b.py', options, [], 1, {}), tmp_path)
    assert started[0][-1] == f'model.backbone.checkpoint={tmp_path}/a-1/seed_0/epoch_1.pth'
