"""`kill -9` of `tools/train.py` at random moments: resumed, it ends as if nothing had happened."""

import json
import random
import subprocess
import sys
import time

import pytest
import torch
from conftest import REPOSITORY

KILLS = 20
COMMON = """
builtin_data = dict(root='data/shapes', num_train=10, num_val=2, seed=0)
val_dataloader = dict(num_workers=0, persistent_workers=False)
log_processor = dict(window_size=1)
custom_hooks = [dict(type='EMAHook', momentum=0.1)]
"""
# Checkpoints within epochs and between the steps of accumulated gradients, an endless sampler
UPERNET = (
    "_base_ = '{configs}/upernet_vit.py'"
    + COMMON
    + """
model = dict(auxiliary_iters=7, backbone=dict(out_indices=1, drop_path_rate=0.3))
train_dataloader = dict(sampler=dict(type='InfiniteSampler', shuffle=True), batch_size=2)
train_cfg = dict(
    _delete_=True, type='IterBasedTrainLoop', max_iters=40, val_interval=10
)
optim_wrapper = dict(accumulative_counts=2)
default_hooks = dict(
    logger=dict(interval=1, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=3),
)
log_processor = dict(window_size=1, by_epoch=False)
"""
)
# Checkpoints after epochs of five iterations
MASK2FORMER = (
    "_base_ = '{configs}/mask2former_vit.py'"
    + COMMON
    + """
model = dict(auxiliary_iters=7, backbone=dict(out_indices=1, drop_path_rate=0.3))
train_dataloader = dict(batch_size=2)
train_cfg = dict(max_epochs=8, val_interval=2)
default_hooks = dict(logger=dict(interval=1))
"""
)
# Five iterations an epoch and steps of two: an epoch ends within a step; annealing
EOMT = (
    "_base_ = '{configs}/eomt/eomt_vit-ti_shapes.py'"
    + COMMON
    + """
model = dict(backbone=dict(model_name='test_vit', drop_path_rate=0.3))
train_dataloader = dict(batch_size=2)
train_cfg = dict(max_epochs=8, val_interval=3)
optim_wrapper = dict(accumulative_counts=2)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(by_epoch=False, interval=2))
"""
)
CONFIGS = dict(upernet=UPERNET, mask2former=MASK2FORMER, eomt=EOMT)


def losses(work_dir):
    """Each iteration's losses; the last written stands."""
    found = {}
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            scalars = json.loads(line) if line.endswith('}') else {}
            if 'loss' in scalars:
                found[scalars['step']] = {k: v for k, v in scalars.items() if 'loss' in k}
    return found


def start(folder, work_dir, *options):
    command = [sys.executable, REPOSITORY / 'tools/train.py', 'config.py', '--work-dir', work_dir]
    return subprocess.Popen(
        [*command, *options], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def lines(work_dir):
    return sum(path.read_text().count('\n') for path in work_dir.glob('*/vis_data/scalars.json'))


def wait_for_a_moment(rng, work_dir, process):
    """One of three kinds: after some iterations, while a checkpoint is written, at any time."""
    kind, until = rng.choice(['lines', 'lines', 'draft', 'time']), time.monotonic() + 60
    wanted = lines(work_dir) + rng.randint(3, 7)
    if kind == 'time':
        until = time.monotonic() + rng.uniform(5, 20)
    while time.monotonic() < until and process.poll() is None:
        if kind == 'lines' and lines(work_dir) >= wanted:
            break
        if kind == 'draft' and any(work_dir.glob('.*.draft')):
            break
        time.sleep(0.02 if kind == 'lines' else 0.0005)
    time.sleep(rng.uniform(0, 0.2) if kind == 'lines' else 0)
    return kind


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize('name', CONFIGS)
def test_a_training_that_is_killed_again_and_again_ends_as_an_undisturbed_one(name, tmp_path):
    text = CONFIGS[name].replace('{configs}', str(REPOSITORY / 'configs'))
    (tmp_path / 'config.py').write_text(text)
    assert start(tmp_path, 'whole').wait(600) == 0
    rng, killed, work_dir, said = random.Random(name), [], tmp_path / 'parts', ''
    for _ in range(KILLS + 20):
        options = ['--resume'] if killed else []
        process = start(tmp_path, 'parts', *options)
        if len(killed) < KILLS:
            kind = wait_for_a_moment(rng, work_dir, process)
        if len(killed) == KILLS or process.poll() is not None:
            said = process.communicate(timeout=600)[0].decode()
            assert process.returncode == 0, said
            break
        process.kill()
        process.communicate()
        killed.append((kind, max(losses(work_dir), default=0)))
    print(f'{name}: {len(killed)} kills at {killed}')
    whole, parts = losses(tmp_path / 'whole'), losses(work_dir)
    assert list(whole) == sorted(parts) == list(range(1, 41))
    for iteration in whole:
        assert parts[iteration] == pytest.approx(whole[iteration], rel=1e-6, abs=1e-6), iteration
    assert_same_results(tmp_path / 'whole', work_dir)
    assert len(killed) >= KILLS // 2  # a quick machine may end before the last ones


def assert_same_results(whole, parts):
    one, two = (json.loads((each / 'record.json').read_text()) for each in (whole, parts))
    assert one.keys() == two.keys()
    assert one['validations'] == two['validations']
    last = next(name for name in ('iter_40.pth', 'epoch_8.pth') if (whole / name).exists())
    one, two = (torch.load(each / last, weights_only=True) for each in (whole, parts))
    for section in ('state_dict', 'ema_state_dict'):
        for key, value in one[section].items():
            torch.testing.assert_close(two[section][key], value, rtol=1e-5, atol=1e-6, msg=key)
