"""Tiny models of EoMT, batches for them, and the training that they believe to be in."""

import itertools

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

import vit_backbones.mmdet
import vit_backbones.mmseg  # noqa: F401
from vit_backbones.models.random_weights import redraw

QUERIES, THINGS, STUFF, CLASSES = 5, 3, 2, 4
_numbers = itertools.count()


def training_at(number=None, total=None, *, seed=0, stage='train'):
    """Let models believe to be in this iteration (from 0) of a training; `None` for unknown."""
    hub = MessageHub.get_instance(f'eomt{next(_numbers)}')
    given = dict(iter=number, max_iters=total, loop_stage=stage, seed=seed)
    hub.update_info_dict({name: value for name, value in given.items() if value is not None})


def no_training():
    """Let models believe to be in no training of MMEngine."""
    training_at(stage=None)


def backbone_config(**options):
    return dict(type='ViTFeatBackbone', model_name='test_vit') | options


def detector(head=(), *, backbone=(), redrawn=True, **options):
    """An `EoMT` of three things and two stuffs."""
    init_default_scope('mmdet')
    panoptic_head = dict(
        type='EoMTHead',
        num_things_classes=THINGS,
        num_stuff_classes=STUFF,
        num_queries=QUERIES,
        num_blocks=2,
    )
    config = dict(
        type='EoMT',
        data_preprocessor=dict(type='DetDataPreprocessor'),
        backbone=backbone_config(**dict(backbone)),
        panoptic_head=panoptic_head | dict(head),
        train_cfg=dict(num_points=64),
        test_cfg=dict(max_per_image=10),
    )
    return _built(config | options, redrawn)


def segmenter(head=(), *, backbone=(), redrawn=True, **options):
    """A `SegEoMT` of four classes."""
    init_default_scope('mmseg')
    decode_head = dict(
        type='SegEoMTHead',
        num_classes=CLASSES,
        num_queries=QUERIES,
        num_blocks=2,
    )
    config = dict(
        type='SegEoMT',
        data_preprocessor=dict(type='SegDataPreProcessor'),
        backbone=backbone_config(**dict(backbone)),
        decode_head=decode_head | dict(head),
        train_cfg=dict(num_points=64),
    )
    return _built(config | options, redrawn)


def _built(config, redrawn):
    model = MODELS.build(ConfigDict(config))
    if redrawn:
        redraw(model)
        head = getattr(model, 'panoptic_head', None) or model.decode_head
        for block in head.upscale:  # else a mask has all patches or none
            torch.nn.init.zeros_(block.conv1.bias)
            torch.nn.init.zeros_(block.norm.bias)
    return model


def images(*size, batch=2, seed=0):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


def objects(size, counts=(2, 1), classes=THINGS, seed=0):
    """Samples of mmdet with so many objects each, and no stuff."""
    rng = np.random.default_rng(seed)
    samples = []
    for count in counts:
        masks = (rng.random((count, *size)) > 0.5).astype(np.uint8)
        instances = InstanceData(
            labels=torch.from_numpy(rng.integers(0, classes, count)),
            masks=BitmapMasks(masks, *size),
        )
        shapes = dict(batch_input_shape=size, img_shape=size, ori_shape=size)
        sample = DetDataSample(metainfo=shapes)
        sample.gt_instances = instances
        samples.append(sample)
    return samples


def label_maps(size, batch=2, *, labels=(0, 1, 2, 255), seed=0):
    """Samples of mmseg with labels among these."""
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(batch):
        sample = SegDataSample(metainfo=dict(img_shape=size, ori_shape=size, pad_shape=size))
        data = torch.from_numpy(rng.choice(labels, (1, *size)))
        sample.gt_sem_seg = PixelData(data=data)
        samples.append(sample)
    return samples
