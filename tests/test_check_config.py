"""tools/check_config.py: what would break or spoil a training has a line of its own."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
from conftest import load_tool
from safetensors.torch import save_file

from vit_backbones.shapes import write_shapes

ROOT = Path(__file__).parents[1]
SHIPPED = sorted(path.name for path in (ROOT / 'configs').glob('*.py'))

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
    roi_head=dict(bbox_head=dict(num_classes=3), mask_head=dict(num_classes=3)),
)
pipeline = [dict(type='LoadImageFromFile'), dict(type='PackDetInputs')]
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


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with two configs, which need nothing else."""
    monkeypatch.chdir(tmp_path)
    Path('seg.py').write_text(SEGMENTER)
    Path('det.py').write_text(DETECTOR)
    return tmp_path


@pytest.fixture
def check(folder, capsys):
    """`tools/check_config.py`'s main: exit code and lines, without those of the missing data."""
    main = load_tool('check_config').main

    def run(config, *options, flags=(), missing=False):
        capsys.readouterr()
        code = main([config, *flags, *(['--cfg-options', *options] if options else [])])
        lines = capsys.readouterr().out.splitlines()
        return code, [line for line in lines if missing or ' does not exist' not in line]

    return run


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


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Weights for `VIT_TINY`, random ones."""
    path = tmp_path_factory.mktemp('weights') / 'tiny.safetensors'
    save_file(timm.create_model('vit_tiny_patch16_224').state_dict(), path)
    return str(path)


@pytest.mark.parametrize('name', SHIPPED)
def test_shipped_configs_pass(name, check, weights, monkeypatch):
    monkeypatch.setenv('VIT_TINY', weights)
    code, lines = check(str(ROOT / 'configs' / name))
    assert lines_of(lines)
    assert code == 0


@pytest.mark.parametrize('config', ['seg.py', 'det.py'])
def test_what_is_in_order_has_no_line_but_of_missing_data(config, check):
    code, lines = check(config)
    assert lines_of(lines)
    assert code == 0


WRONG = {
    'strides': (
        'det.py',
        ['model.neck.out_strides=[8,16,32,64]'],
        'error: the neck gives maps of strides [8, 16, 32, 64, 128], but rpn_head.prior_gen',
        'error: the neck gives maps of strides [8, 16, 32, 64], but roi_head.bbox_roi_extractor is',
        'error: the neck gives maps of strides [8, 16, 32, 64], but roi_head.mask_roi_extractor is',
    ),
    'classes': (
        'seg.py',
        ['model.decode_head.num_classes=3'],
        'error: model.decode_head is for 3 classes, but train_dataloader.dataset has 2 (road, sky)'
        ': set model.decode_head.num_classes=2',
    ),
    'classes of a detector': (
        'det.py',
        ['train_dataloader.dataset.metainfo.classes=[cat,dog]'],
        'error: model.roi_head.bbox_head is for 3 classes, but train_dataloader.dataset has 2',
        'error: model.roi_head.mask_head is for 3 classes, but train_dataloader.dataset has 2',
    ),
    'one class without its comma': (
        'seg.py',
        ['train_dataloader.dataset.metainfo.classes=road'],
        "error: train_dataloader.dataset.metainfo.classes is the text 'road': write ('road',)",
    ),
    'fp16 under DINOv3': (
        'seg.py',
        ['model.backbone.model_name=vit_small_patch16_dinov3', 'optim_wrapper.type=AmpOptimWrapper']
        + ['model.decode_head.in_channels=[384,384]'],
        'error: optim_wrapper.dtype=None is float16, in which vit_small_patch16_dinov3 overflows to'
        " NaN: set optim_wrapper.dtype='bfloat16'",
    ),
    'padding': (
        'seg.py',
        ['model.backbone.patch_size=14'],
        'warning: data_preprocessor.size is (64, 96), no multiple of',
    ),
    'no weights': (
        'seg.py',
        ['model.backbone={type: ViTFeatBackbone}'],
        'warning: model.backbone has no weights and starts from random ones: give it checkpoint',
    ),
    'frozen without weights': (
        'seg.py',
        ['model.backbone.frozen_stages=2'],
        'error: model.backbone has no weights, and frozen_stages=2 keeps random ones',
    ),
    'unused parameters': (
        'det.py',
        ['model.neck.num_outs=5', 'model.rpn_head.loss_bbox.loss_weight=1.0', 'UNUSED'],
        'warning: 2 of ',
    ),
    'find_unused_parameters': (
        'seg.py',
        ['find_unused_parameters=True'],
        'warning: find_unused_parameters=True costs time in every step',
    ),
    'unknown key': (
        'seg.py',
        ['KEYS'],
        "error: 'batchsize' is neither a key of 'train_dataloader' nor an argument of",
        "warning: 'optim_wraper' is neither a key of 'the config'; did you mean 'optim_wrapper'?",
        "error: train_dataloader.dataset.pipeline.0: 'LoadImage' is not in the mmseg::transform",
    ),
    'a missing checkpoint': (
        'seg.py',
        ['model.backbone.checkpoint=no.pth', 'model.data_preprocessor.mean=[0.0,0.0,0.0]'],
        "error: model: ViTFeatBackbone: checkpoint 'no.pth' does not exist",
        'warning: data_preprocessor.mean is [0.0, 0.0, 0.0], but the weights of test_vit expect',
    ),
}
