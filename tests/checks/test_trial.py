"""tools/check_config.py: what a trial step and the data tell."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from checked_configs import ROOT, SEGMENTER, lines_of, write_segments
from redraw import redraw
from toy_task import write_toy_config

from vit_backbones import ViTFeatBackbone
from vit_backbones.checks import trial

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


@pytest.mark.parametrize(
    ('more', 'number'), [({}, 1), (dict(drop_path_rate=0.9), 0), (dict(lora=None), 0)]
)
def test_updates_before_weights_of_zero_are_named(more, number, check):
    pytest.importorskip('peft')
    vit = redraw(ViTFeatBackbone('test_vit'), gain=0.5)
    vit.vit.blocks[1].attn.proj.weight.data.zero_()
    torch.save(vit.vit.state_dict(), 'vit.pth')
    options = dict(lora=dict(r=2), checkpoint='vit.pth') | more
    Path('zero.py').write_text(SEGMENTER + f"model['backbone'].update({options})")
    code, lines = check('zero.py')
    found = [line for line in lines if 'gradient of zero' in line]
    start = 'warning: 1 of 4 updates of LoRA get a gradient of zero (backbone.vit.blocks.1.attn.qkv'
    assert [line[: len(start)] for line in found] == [start] * number
    assert code == 0


def test_a_step_that_fails_is_told(check):
    code, lines = check('seg.py', 'model.decode_head.loss_decode.loss_weight=much')
    assert lines_of(lines, 'error: a training step on two drawn images fails: ')
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


def test_a_reason_that_all_images_share_is_told_once(check):
    write_segments(1)
    cv2.imwrite('seg/images/b.png', cv2.imread('seg/images/a.png'))
    cv2.imwrite('seg/labels/b.png', cv2.imread('seg/labels/a.png', 0))
    text = (
        Path('seg.py')
        .read_text()
        .replace("'LoadAnnotations')", "'LoadAnnotations', reduce_zero_label=True)")
    )
    Path('seg.py').write_text(text)
    assert lines_of(
        check('seg.py', flags=['--data'])[1],
        'error: 2 train images cannot be decoded: seg/images/a.png, seg/images/b.png (Initialize '
        'dataset with `reduce_zero_label` as False but when load annotation the '
        '`reduce_zero_label` is True)',
    )


def test_label_maps_that_are_missing_are_told_once(check):
    write_segments(1)
    lines = check('seg.py', 'train_dataloader.dataset.seg_map_suffix=_mask.png', flags=['--data'])
    assert lines_of(lines[1], 'error: train_dataloader.dataset: 1 of 1 label maps do not exist')


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
    missing = "error: train_dataloader.dataset.metainfo.classes has 'cow', which boxes.json does"
    assert lines_of(lines, missing, 'note: train: 1 image with 1 of 1 objects')
    assert code == 1


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


def test_a_head_that_a_training_leaves_out_at_first_is_tried(check):
    config = str(ROOT / 'configs/upernet_vit.py')
    assert lines_of(check(config, 'model.decode_head.loss_decode.loss_weight=much')[1], 'error: ')
