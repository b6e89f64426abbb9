"""Thousands of steps, hundreds of sizes and validations: memory, files and processes stay."""

import ctypes
import gc
import os
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import load_tool
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import HOOKS, MODELS
from toy_task import write_toy_config

from vit_backbones import ViTFeatBackbone

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not Path('/proc/self/fd').is_dir(), reason='looks at files in /proc'),
]
GRIDS = [(1 + i % 25, 1 + i // 25) for i in range(500)]  # patches
DINOV2 = dict(
    model_type='dinov2', hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
    image_size=64, patch_size=16,
)  # fmt: skip
SWIN = dict(model_type='swin', embed_dim=24, depths=[1, 1], num_heads=[2, 2], window_size=4)
FAMILIES = {
    'windows and relative positions': dict(
        model_name='test_vit', window_size=3, window_block_indexes=(0, 1), use_rel_pos=True
    ),
    'a resampled table': dict(model_name=DINOV2, source='transformers'),
    'rotary positions': dict(model_name='eva02_tiny_patch14_224', patch_size=16, img_size=224),
    'stages': dict(model_name=SWIN, source='transformers'),
    'padding masked': dict(model_name='test_vit', mask_padding=True),
}


@MODELS.register_module()
class LongToy(BaseModel):
    """A backbone and a mean."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = MODELS.build(backbone)

    def forward(self, inputs, paths, mode='tensor'):
        maps = self.backbone(torch.stack(inputs).float() / 255)
        return dict(loss=sum(each.square().mean() for each in maps))


def counts():
    """Memory in MiB, open files, processes with threads, and objects."""
    gc.collect()
    getattr(ctypes.CDLL(None), 'malloc_trim', int)(0)  # free memory is the system's
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    threads = list(Path('/proc/self/task').iterdir())
    children = [child for each in threads for child in (each / 'children').read_text().split()]
    return (
        pages * os.sysconf('SC_PAGE_SIZE') / 2**20,
        len(os.listdir('/proc/self/fd')),
        len(threads) + len(children),
        len(gc.get_objects()),
    )


@HOOKS.register_module()
class CountHook(Hook):
    """Notes the counts after every so many iterations, or after each validation."""

    found: list = []  # noqa: RUF012

    def __init__(self, interval=None):
        self.interval = interval
        self.found.clear()

    def after_train_iter(self, runner, batch_idx, **kwargs):
        if self.interval and self.every_n_train_iters(runner, self.interval):
            self.found.append((runner.iter + 1, *counts()))

    def after_val(self, runner):
        if not self.interval:
            self.found.append((runner.epoch, *counts()))


def assert_flat(found, warm, per, more_objects=50):
    """Memory and objects by so many steps do not grow after the warm-up; the rest is constant."""
    steps, memory, files, processes, objects = np.array([e for e in found if e[0] >= warm]).T
    slopes = [np.polyfit(steps, each, 1)[0] * per for each in (memory, objects)]
    print(
        f'{len(steps)} counts, {steps[0]:g} to {steps[-1]:g}: {memory[0]:.0f} to {memory[-1]:.0f} '
        f'MiB, {slopes[0]:.2f} MiB and {slopes[1]:.0f} objects per {per}; '
        f'files {files.min():g} to {files.max():g}, '
        f'processes and threads {processes.min():g} to {processes.max():g}'
    )
    assert slopes[0] < 5
    assert slopes[1] < more_objects
    assert len(set(files)) == len(set(processes)) == 1


LONG = """
model = dict(type='LongToy', backbone=dict(type='ViTFeatBackbone', {backbone}))
val_dataloader = val_evaluator = val_cfg = None
train_dataloader.update(batch_size=1, num_workers=1, persistent_workers=True)
train_cfg = dict(by_epoch=True, max_epochs=4)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4))
default_hooks['checkpoint'].update(save_best=None, rule=None, max_keep_ckpts=1)
custom_hooks = [dict(type='CountHook', interval=50)]
"""


@pytest.mark.parametrize('family', ['windows and relative positions', 'a resampled table'])
def test_two_thousand_steps_of_five_hundred_sizes(family, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    backbone = ', '.join(f'{name}={value!r}' for name, value in FAMILIES[family].items())
    config = write_toy_config(tmp_path, 'toy', more=LONG.format(backbone=backbone), num=500)
    for i, (h, w) in enumerate(GRIDS):
        image = np.full((16 * h - i % 3, 16 * w, 3), i % 256, np.uint8)
        cv2.imwrite(str(tmp_path / f'toy_data/images/train{i}.png'), image)
    assert load_tool('train').main([config, '--work-dir', 'w']) == 0
    assert CountHook.found[-1][0] == 2000
    print(family, end=': ')
    assert_flat(CountHook.found, warm=600, per=1000)


@pytest.mark.parametrize('family', FAMILIES)
def test_a_backbone_keeps_nothing_of_five_hundred_sizes(family):
    backbone, found = ViTFeatBackbone(**FAMILIES[family]).eval(), []
    for step in range(1000):
        h, w = GRIDS[step % 500]
        with torch.no_grad():
            backbone(torch.zeros(1, 3, 16 * h, 16 * w - step % 3))
        if step % 50 == 49:
            found.append((step + 1, *counts()))
    print(family, end=': ')
    assert_flat(found, warm=500, per=500)


VALIDATIONS = """
val_dataloader.update(num_workers=1, persistent_workers=True)
train_cfg = dict(by_epoch=True, max_epochs=200, val_interval=1)
default_hooks['checkpoint'].update(max_keep_ckpts=1)
custom_hooks = [dict(type='CountHook')]
"""


def test_two_hundred_validations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = write_toy_config(tmp_path, 'toy', more=VALIDATIONS, drawn=True)
    assert load_tool('train').main([config, '--work-dir', 'w']) == 0
    assert len(CountHook.found) == 200
    assert_flat(CountHook.found, warm=50, per=100, more_objects=300)  # records of each
    assert plt.get_fignums() == []
    assert len(list(Path('w').glob('*.pth'))) == 2
