"""A model, a dataset and a metric so small that a whole training takes a second."""

import builtins
import json
from pathlib import Path

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS
from mmengine.structures import BaseDataElement, PixelData

CONFIG = """
custom_imports = dict(imports=['toy_task'])
model = dict(type='ToyModel', bias=True)
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='ToyDataset',
        data_root={root!r},
        ann_file='train.json',
        data_prefix=dict(img_path='images'),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackToy')],
    ),
)
val_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ToyDataset',
        data_root={root!r},
        ann_file='val.json',
        data_prefix=dict(img_path='images'),
        test_mode=True,
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackToy')],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='ToyMetric')
test_evaluator = val_evaluator
train_cfg = dict(by_epoch=True, max_epochs=3)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.05))
param_scheduler = dict(type='CosineAnnealingLR', T_max=3)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=2),
    checkpoint=dict(type='CheckpointHook', interval=1, save_best='toy/mIoU', rule='greater'),
    {undrawn}
)
randomness = dict(seed=3)
{more}
"""


DATASETS.register_module('ToyDataset', module=BaseDataset)


@TRANSFORMS.register_module()
class PackToy(BaseTransform):
    def __init__(self, more=0):
        self.more = more  # bytes that workers send with each sample

    def transform(self, results):
        image = torch.from_numpy(results['img']).permute(2, 0, 1)  # (3, H, W)
        return dict(inputs=image, paths=results['img_path'] + ' ' * self.more)


@MODELS.register_module()
class ToyModel(BaseModel):
    def __init__(self, bias=True):
        super().__init__()
        self.linear = torch.nn.Linear(1, 1, bias=bias)

    def forward(self, inputs, paths, mode='tensor'):
        images = torch.stack(inputs).float()  # (B, 3, H, W)
        values = self.linear(images.mean((1, 2, 3))[:, None] / 255)
        if mode == 'loss':
            return dict(loss=(values - 1).square().mean())
        labels = torch.zeros(1, *images.shape[2:], dtype=torch.int64)
        return [
            BaseDataElement(img_path=path, pred_sem_seg=PixelData(data=labels)) for path in paths
        ]


@METRICS.register_module()
class ToyMetric(BaseMetric):
    default_prefix = 'toy'
    scores = (30.0, 50.0, 40.0)  # of the first, second and third validation

    def __init__(self):
        super().__init__()
        self.num_evaluations = 0

    def process(self, data_batch, data_samples):
        self.results.append(len(data_samples))

    def compute_metrics(self, results):
        print('a chatty library')
        self.num_evaluations += 1
        score = self.scores[(self.num_evaluations - 1) % 3]
        return dict(other=0.1, mIoU=np.float64(score), num=float(sum(results)))


@HOOKS.register_module()
class ToyStopHook(Hook):
    """Raises in the middle of an epoch."""

    def __init__(self, epoch, error='KeyboardInterrupt'):
        self.epoch, self.error = epoch, error

    def after_train_iter(self, runner, batch_idx, **kwargs):
        if (runner.epoch, batch_idx) == (self.epoch, 1):
            raise getattr(builtins, self.error)('a bug')


def write_toy_data(root, num=6, broken=()):
    """Write images and annotation files; those named in `broken` hold no image."""
    (root / 'images').mkdir(parents=True)
    for split in ('train', 'val'):
        names = [f'{split}{i}.png' for i in range(num)]
        for i, name in enumerate(names):
            path = root / 'images' / name
            cv2.imwrite(str(path), np.full((5, 7, 3), 40 * i % 256, np.uint8))
            if name in broken:
                path.write_bytes(b'no image')
        items = [dict(img_path=name) for name in names]
        meta = dict(classes=['a'], palette=[[255, 0, 0]])
        content = json.dumps(dict(metainfo=meta, data_list=items))
        (root / f'{split}.json').write_text(content)
    return root


def write_toy_config(folder, name='toy', broken=(), more='', drawn=False, num=6):
    """Write a config and its data; gives the config's path."""
    folder = Path(folder)
    root = folder / f'{name}_data'
    write_toy_data(root, num, broken)
    path = folder / f'{name}.py'
    undrawn = '' if drawn else 'curves=None, pictures=None'  # drawing takes half of the time
    path.write_text(CONFIG.format(root=str(root), more=more, undrawn=undrawn))
    return str(path)
