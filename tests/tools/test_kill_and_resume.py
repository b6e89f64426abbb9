"""`kill -9` of `tools/train.py` in mid-annealing: `--resume` ends with the same losses."""

import json
import subprocess
import sys
import time

import pytest
from conftest import REPOSITORY

# 16 iterations, checkpoints at 4, 8, 12: masks of the three blocks fall from 2.7, 6.7 and 10.7 on
CONFIG = f"""
_base_ = {str(REPOSITORY / 'configs/eomt/eomt_vit-ti_shapes.py')!r}
builtin_data = dict(root='data/shapes', num_train=32, num_val=2, seed=0)
model = dict(backbone=dict(model_name='test_vit', drop_path_rate=0.0))
train_pipeline = [e for e in _base_.train_pipeline if e.type != 'mmdet.RandomFlip']
train_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(pipeline=train_pipeline)
)
train_cfg = dict(max_epochs=4, val_interval=100)
default_hooks = dict(logger=dict(interval=1))
log_processor = dict(window_size=1)
"""
KILLED = 6


def losses(work_dir):
    """Each iteration's losses; the last written stands."""
    found = {}
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            scalars = json.loads(line)
            found[scalars['step']] = {k: v for k, v in scalars.items() if 'loss' in k}
    return found


@pytest.mark.slow
def test_a_training_killed_in_mid_annealing_goes_on_with_the_same_losses(tmp_path):
    (tmp_path / 'eomt.py').write_text(CONFIG)

    def start(work_dir, *options):
        command = [sys.executable, REPOSITORY / 'tools/train.py', 'eomt.py', '--work-dir', work_dir]
        return subprocess.Popen([*command, *options], cwd=tmp_path)

    assert start('whole').wait(300) == 0
    killed = start('killed')
    deadline = time.monotonic() + 300
    while max(losses(tmp_path / 'killed'), default=0) < KILLED:
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    killed.kill()
    assert killed.wait(60) == -9
    assert not (tmp_path / 'killed/epoch_4.pth').exists()
    before = losses(tmp_path / 'killed')

    assert start('killed', '--resume').wait(300) == 0
    whole, resumed = losses(tmp_path / 'whole'), losses(tmp_path / 'killed')
    assert list(whole) == sorted(resumed) == list(range(1, 17))
    for iteration in whole:
        assert resumed[iteration] == pytest.approx(whole[iteration], rel=1e-6, abs=1e-6), iteration
    assert KILLED <= len(before) < 12
