"""Two configs that are in order, to be made wrong, and what is said of them."""

import re
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).parents[1]
SEGMENTER = """
default_scope = 'mmseg'
custom_imports = dict(imports=['vit_backbones'])
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True,
        size=(64, 96), pad_val=0, seg_pad_val=255,
    ),
    backbone=dict(
        type='ViTFeatBackbone', model_name='test_vit', pretrained=False, out_indices=(1, 3),
        norm='all',
    ),
    decode_head=dict(
        type='FCNHead', in_channels=[64, 64], in_index=[0, 1], input_transform='resize_concat',
        channels=8, num_convs=1, num_classes=2, norm_cfg=dict(type='GN', num_groups=1),
        loss_decode=dict(type='CrossEntropyLoss'),
    ),
    test_cfg=dict(mode='whole'),
)
pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='BaseSegDataset', data_root='seg', img_suffix='.png', seg_map_suffix='.png',
        metainfo=dict(classes=('road', 'sky')), pipeline=pipeline,
        data_prefix=dict(img_path='images', seg_map_path='labels'),
    ),
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4))
"""


DETECTOR = """
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'
default_scope = 'mmdet'
custom_imports = dict(imports=['vit_backbones'])
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        _delete_=True, type='ViTFeatBackbone', model_name='test_vit', pretrained=False,
    ),
    neck=dict(_delete_=True, type='SimpleFeaturePyramid', in_channels=64, num_outs=5),
    roi_head=dict(
        bbox_head=dict(num_classes=3, fc_out_channels=8),
        mask_head=dict(num_classes=3, num_convs=1),
    ),
)
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset', ann_file='boxes.json', data_prefix=dict(img='images/'),
        metainfo=dict(classes=('cat', 'dog', 'cow')), pipeline=pipeline,
    ),
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4))
"""


def lines_of(lines, *beginnings):
    """Whether these are the findings, in any order, and the last line sums up."""
    left = lines[:-1]
    for beginning in beginnings:
        found = [line for line in left if line.startswith(beginning)]
        assert len(found) == 1, (beginning, lines)
        left.remove(found[0])
    assert not left, left
    assert re.search(r'\.py: (no|\d+) errors?, (no|\d+) warnings?$', lines[-1])
    return True


def errors_of(findings):
    """The texts of the errors among findings."""
    return [each.text for each in findings if each.level == 'error']


def write_segments(label):
    """An image of which a half has a label, and the rest are both classes."""
    for name, value in (('images', 100), ('labels', label)):
        (Path('seg') / name).mkdir(parents=True)
        pixels = np.full((64, 96), value, np.uint8)
        pixels[:16], pixels[16:32] = 0, 1
        cv2.imwrite(f'seg/{name}/a.png', pixels)
