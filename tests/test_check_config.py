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
from mmengine.config import Config
from safetensors.torch import save_file
from torch import nn
from toy_task import write_toy_config

from vit_backbones import trial
from vit_backbones.checks import class_findings

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
        absent = re.compile(r'warning: \w+_(dataloader|evaluator)\S* .* does not exist')
        return code, [line for line in lines if missing or not absent.match(line)]

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
        [
            'model.backbone.model_name=vit_small_patch16_dinov3',
            'model.decode_head.in_channels=[384,384]',
            'optim_wrapper.type=AmpOptimWrapper',
        ],
        'error: optim_wrapper.dtype=None is float16, in which vit_small_patch16_dinov3 overflows to'
        " NaN: set optim_wrapper.dtype='bfloat16'",
    ),
    'padding': (
        'seg.py',
        ['model.backbone.patch_size=14'],
        'warning: data_preprocessor.size is (64, 96), no multiple of',
    ),
    'frozen without weights': (
        'seg.py',
        ['model.backbone.frozen_stages=2'],
        'error: model.backbone has no weights, and frozen_stages=2 keeps random ones',
    ),
    'find_unused_parameters': (
        'seg.py',
        ['find_unused_parameters=True'],
        'warning: find_unused_parameters=True costs time in every step',
    ),
    'a missing checkpoint': (
        'seg.py',
        ['model.backbone.checkpoint=no.pth', 'model.data_preprocessor.mean=[0.0,0.0,0.0]'],
        "error: model: checkpoint 'no.pth' does not exist",
        'warning: data_preprocessor.mean is [0.0, 0.0, 0.0], but the weights of test_vit expect',
    ),
}


@pytest.mark.parametrize('case', WRONG)
def test_a_mistake_has_its_own_lines(case, check):
    config, options, *beginnings = WRONG[case]
    code, lines = check(config, *options)
    assert lines_of(lines, *beginnings)
    assert code == any(each.startswith('error') for each in beginnings)


def test_two_mistakes_are_both_reported(check):
    code, lines = check('seg.py', *WRONG['classes'][1], *WRONG['padding'][1])
    assert lines_of(lines, WRONG['classes'][2], WRONG['padding'][2])
    assert lines[-1] == 'seg.py: 1 error, 2 warnings'  # the data are not there
    assert code == 1


SIGLIP = """
model['backbone'] = dict(
    type='ViTFeatBackbone', model_name='vit_base_patch16_siglip_224', out_indices=0, norm='all',
    checkpoint='siglip.safetensors',
)
model['decode_head'].update(in_channels=[768], in_index=[0])
model['data_preprocessor'].update(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
"""


def test_mean_of_imagenet_under_siglip_is_told(check):
    """The weights are those of the first of its blocks, all that `out_indices` leaves."""
    vit = timm.create_model('vit_base_patch16_siglip_224', depth=1)
    save_file(vit.state_dict(), 'siglip.safetensors')
    Path('siglip.py').write_text(SEGMENTER + SIGLIP)
    code, lines = check('siglip.py')
    assert lines_of(
        lines,
        'warning: data_preprocessor.mean is [123.68, 116.28, 103.53], but the weights of vit_base_',
        'warning: data_preprocessor.std is [5',
    )
    assert code == 0


def test_random_weights_are_told_unless_they_are_meant(check):
    Path('random.py').write_text(SEGMENTER.replace('pretrained=False, ', ''))
    code, lines = check('random.py')
    assert lines_of(
        lines, 'warning: model.backbone has no weights and starts from random ones: give'
    )
    assert code == 0
    assert lines_of(check('random.py', 'model.backbone.pretrained=False')[1])


def test_a_whole_model_to_load_brings_weights_of_unknown_mean(check):
    save = dict(state_dict=dict(a=torch.zeros(1)))
    torch.save(save, 'whole.pth')
    Path('whole.py').write_text(SEGMENTER.replace('pretrained=False, ', ''))
    mean = 'model.data_preprocessor.mean=[0.0,0.0,0.0]'
    assert lines_of(check('whole.py', 'load_from=whole.pth', mean)[1])


UNUSED = """
model.update(neck=dict(
    type='SimpleFeaturePyramid', in_channels=[64, 64], out_channels=16, out_strides=(8, 16)
))
model['decode_head'].update(in_channels=16, in_index=1, input_transform=None)
"""


def test_parameters_without_a_gradient_are_named(check):
    Path('unused.py').write_text(SEGMENTER + UNUSED)
    code, lines = check('unused.py')
    assert lines_of(lines, 'warning: ')
    pattern = r'\d+ of \d+ parameters get no gradient \(neck.levels.stride8\S+, .* and \d+ more\)'
    assert re.search(pattern, lines[0])
    assert code == 0
    Path('told.py').write_text(SEGMENTER + UNUSED + 'find_unused_parameters = True')
    assert lines_of(check('told.py')[1])


def test_a_step_that_fails_is_told(check):
    code, lines = check('seg.py', 'model.decode_head.loss_decode.class_weight=[1.0]')
    assert lines_of(lines, 'error: a training step on two drawn images fails: ')
    assert code == 1


def test_keys_that_nothing_reads_are_told(check):
    typos = SEGMENTER.replace('batch_size=2', 'batchsize=2').replace('max_epochs', 'max_epoch')
    typos = typos.replace("'LoadAnnotations'", "'LoadAnotations'") + 'find_unused_paramters = True'
    Path('typos.py').write_text(typos)
    code, lines = check('typos.py')
    assert lines_of(
        lines,
        "error: 'batchsize' is neither a key of 'train_dataloader'; did you mean 'batch_size'?",
        "error: 'max_epoch' is neither a key of 'train_cfg' nor an argument of EpochBased",
        "error: train_dataloader.dataset.pipeline.1: 'LoadAnotations' is not in the mmseg::trans",
        "warning: 'find_unused_paramters' is neither a key of 'the config'; did you mean",
    )
    assert code == 1


def test_a_head_without_gradients_at_first_needs_ddp_to_know(check):
    code, lines = check(str(ROOT / 'configs/upernet_vit.py'), 'find_unused_parameters=False')
    assert lines_of(lines, 'warning: model.auxiliary_iters=250: in these iterations the head')
    assert code == 0


def test_missing_data_are_a_warning_or_with_data_an_error(check):
    line = ": train_dataloader.dataset.data_root: 'seg' does not exist (looked from "
    code, lines = check('seg.py', missing=True)
    assert lines_of(lines, 'warning' + line)
    assert code == 0
    code, lines = check('seg.py', flags=['--data'], missing=True)
    assert lines_of(lines, 'error' + line)
    assert code == 1


def write_segments(label):
    for name, value in (('images', 100), ('labels', label)):
        (Path('seg') / name).mkdir(parents=True)
        cv2.imwrite(f'seg/{name}/a.png', np.full((64, 96), value, np.uint8))


def test_labels_without_a_class_are_told(check):
    write_segments(2)
    assert lines_of(check('seg.py')[1])
    code, lines = check('seg.py', flags=['--data'])
    assert lines_of(lines, 'error: train_dataloader.dataset: seg/labels/a.png holds label 2, but')
    assert code == 1


@pytest.mark.parametrize('label', [1, 255])
def test_labels_with_a_class_and_ignored_ones_pass(label, check):
    write_segments(label)
    assert check('seg.py', flags=['--data'])[0] == 0


def test_images_that_cannot_be_decoded_are_told(check):
    write_segments(1)
    Path('seg/images/a.png').write_text('no image')
    code, lines = check('seg.py', flags=['--data'])
    assert lines_of(lines, 'error: 1 train image cannot be decoded: seg/images/a.png')
    assert code == 1


def test_classes_that_no_annotation_has_are_told(check):
    cv2.imwrite('a.png', np.zeros((64, 96, 3), np.uint8))
    Path('images').mkdir()
    Path('a.png').rename('images/a.png')
    boxes = dict(
        images=[dict(id=1, file_name='a.png', height=64, width=96)],
        annotations=[
            dict(
                id=1,
                image_id=1,
                category_id=1,
                bbox=[8, 8, 32, 32],
                area=1024,
                iscrowd=0,
                segmentation=[[8, 8, 40, 8, 40, 40, 8, 40]],
            )
        ],
        categories=[dict(id=i, name=name) for i, name in enumerate(['cat', 'dog', 'bull'], 1)],
    )
    Path('boxes.json').write_text(json.dumps(boxes))
    code, lines = check('det.py', flags=['--data'])
    assert lines_of(lines, 'error: train_dataloader.dataset.metainfo.classes has cow, which boxes.')
    assert code == 1


def test_wrong_path_or_option_is_exit_code_2(folder, capsys):
    main = load_tool('check_config').main
    assert main(['sge.py']) == 2
    assert main(['seg.py', '--cfg-options', 'model.bakcbone.depth=1']) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[0] == "error: config 'sge.py' does not exist; did you mean seg.py?"
    assert errors[1].startswith("error: --cfg-options model.bakcbone.depth: 'bakcbone' is neither")


def test_a_training_is_refused_by_the_same_line(check, train, capsys):
    option = WRONG['classes'][1]
    write_segments(1)
    _, lines = check('seg.py', *option)
    assert train(['seg.py', '--cfg-options', *option]) == 2
    assert capsys.readouterr().err.splitlines() == [lines[0]]


def test_weights_that_mmengine_downloads_are_left_to_it(check, no_network):
    remote = dict(type='Pretrained', checkpoint='https://example.org/a.pth')
    Path('remote.py').write_text(SEGMENTER + f"model['decode_head']['init_cfg'] = {remote}")
    assert lines_of(check('remote.py')[1])
    assert not no_network


def test_masks_that_the_pipeline_does_not_load_are_missed(check):
    code, lines = check('det.py', 'train_dataloader.dataset.pipeline.1.with_mask=False')
    assert lines_of(lines, 'error: a training step on two drawn images fails: AttributeError: ')
    assert code == 1


def test_a_larger_image_is_tried_too(monkeypatch, check):
    tried = []

    def step(model, size, samples):
        tried.append((size, samples[0].gt_sem_seg.shape))
        raise ValueError('too small')

    monkeypatch.setattr(trial, '_step', step)
    assert lines_of(
        check('seg.py', 'model.data_preprocessor.size=(128,160)')[1], 'error: a training'
    )
    assert tried == [((64, 96), (64, 96)), ((128, 160), (128, 160))]


def test_a_step_is_tried_with_detectors_and_segmenters_alone(check, folder):
    code, lines = check(write_toy_config(folder))
    assert lines_of(lines, 'warning: no training step was tried: ToyModel takes other data')
    assert code == 0


@pytest.mark.parametrize(('dtype', 'number'), [('float16', 1), ('bfloat16', 0)])
def test_float16_under_mask2former_is_warned_of(dtype, number, check):
    config = str(ROOT / 'configs/mask2former_vit.py')
    code, lines = check(
        config, 'optim_wrapper.type=AmpOptimWrapper', f'optim_wrapper.dtype={dtype}'
    )
    assert lines_of(lines, *["warning: optim_wrapper.dtype='float16' is float16, in"] * number)
    assert code == 0


class STDCHead(nn.Module):
    num_classes = 2  # edges and the rest


def _panoptic(number):
    model = nn.Module()
    model.roi_head = nn.Module()
    model.roi_head.bbox_head = nn.Module()
    model.roi_head.bbox_head.num_classes = number
    model.auxiliary_head = STDCHead()
    loader = dict(dataset=dict(type='CocoPanopticDataset'))
    config = Config(dict(default_scope='mmdet', train_dataloader=loader))
    return [each.text for each in class_findings(config, model, ('train',))]


def test_heads_of_things_know_no_stuff_and_those_of_edges_neither():
    assert not _panoptic(80)
    (text,) = _panoptic(133)
    assert text.startswith('model.roi_head.bbox_head is for 133 classes, but train_dataloader.data')
    assert 'has 80 (person' in text


def test_panoptic_annotations_are_masks_by_default():
    pipeline = [dict(type='LoadPanopticAnnotations')]
    assert trial._has(dict(dataset=dict(pipeline=pipeline)), 'with_mask')
    pipeline[0]['with_mask'] = False
    assert not trial._has(dict(dataset=dict(pipeline=pipeline)), 'with_mask')


def test_a_config_without_a_model_is_told(check):
    Path('base.py').write_text('train_cfg = dict(by_epoch=True, max_epochs=1)')
    assert lines_of(check('base.py')[1], 'error: the config has no model')


def test_low_rank_updates_of_random_weights_are_refused(check):
    pytest.importorskip('peft')
    text = SEGMENTER.replace('pretrained=False, ', 'lora=dict(r=2), ')
    Path('lora.py').write_text(text)
    code, lines = check('lora.py')
    assert lines_of(lines, 'error: model.backbone has no weights, and lora keeps random ones')
    assert code == 1


def test_a_head_that_a_training_leaves_out_at_first_is_tried(check):
    config = str(ROOT / 'configs/upernet_vit.py')
    assert lines_of(check(config, 'model.decode_head.loss_decode.class_weight=[1.0]')[1], 'error: ')
