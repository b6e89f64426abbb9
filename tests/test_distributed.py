"""Two processes on one CPU train as one process does with the same images a step."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
CONFIG = """
_base_ = {base!r}
default_scope = 'mmseg'
builtin_data = dict(_delete_=True, root='data/shapes', num_train=8, num_val=2)
model = dict(
    _delete_=True,
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', mean=[127.5] * 3, std=[127.5] * 3,
                           size=(128, 192)),
    backbone=dict(
        type='ViTFeatBackbone', model_name='vit_tiny_patch16_224', out_indices=(0, 1), norm='all'
    ),
    decode_head=dict(
        type='FCNHead', in_channels=[192, 192], in_index=[0, 1], input_transform='resize_concat',
        channels=384, num_convs=0, concat_input=False, dropout_ratio=0.0, num_classes=9,
        loss_decode=dict(type='CrossEntropyLoss'),
    ),
    test_cfg=dict(mode='whole'),
)
train_dataloader = dict(
    batch_size={batch}, num_workers=0, persistent_workers=False,
    dataset=dict(pipeline=[
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs'),
    ]),
)
val_dataloader = dict(num_workers=0, persistent_workers=False)
optim_wrapper = dict(
    _delete_=True, type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05, momentum=0.9)
)
param_scheduler = None
train_cfg = dict(_delete_=True, by_epoch=True, max_epochs=2, val_interval=2)
randomness = dict(seed=0)
"""


def trained(folder, batch, *launcher):
    """Weights, and what the training said, of a run in a folder."""
    folder.mkdir()
    config = folder / 'toy.py'
    config.write_text(CONFIG.format(base=str(ROOT / 'configs/upernet_vit.py'), batch=batch))
    options = ['--launcher', 'pytorch'] if launcher else []
    done = subprocess.run(
        [sys.executable, *launcher, str(ROOT / 'tools/train.py'), str(config), *options],
        cwd=folder,
        env=os.environ | {'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '-1'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return torch.load(folder / 'work_dirs/toy/epoch_2.pth')['state_dict'], done.stdout


@pytest.mark.timeout(300)
def test_two_processes_train_as_one(tmp_path):
    alone, said_alone = trained(tmp_path / 'one', 2)
    torchrun = ('-m', 'torch.distributed.run', '--nproc_per_node=2', '--master_port=29517')
    together, said = trained(tmp_path / 'two', 1, *torchrun)
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-4, atol=1e-5, msg=name)
    assert said.count('done: mIoU') == said_alone.count('done: mIoU') == 1
