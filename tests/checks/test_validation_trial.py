"""tools/check_config.py tries a validation step, and builds the parts around the model."""

import json
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from checked_configs import DETECTOR, SEGMENTER, errors_of, lines_of
from mmengine.config import Config
from mmengine.registry import MODELS
from mmseg.models import SegDataPreProcessor
from toy_task import write_toy_config

from vit_backbones.checks.training_parts import built_hooks, part_findings
from vit_backbones.checks.validation_faults import reason_of
from vit_backbones.checks.validation_trial import validation_findings
from vit_backbones.config.facts import Facts
from vit_backbones.config.loading import use_scope
from vit_backbones.terminal import silence

SEG = (
    SEGMENTER
    + """
metric = dict(type='IoUMetric', iou_metrics=['mIoU'])
load, labels = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')
resize = dict(type='Resize', scale=(96, 64), keep_ratio=True)
pack = dict(type='PackSegInputs')
steps = [load, resize, labels, pack]
"""
)
DET = (
    SEG.replace(SEGMENTER, DETECTOR)
    .replace(
        "dict(type='IoUMetric', iou_metrics=['mIoU'])",
        "dict(type='CocoMetric', ann_file='boxes.json', metric=['bbox', 'segm'])",
    )
    .replace("type='LoadAnnotations')", "type='LoadAnnotations', with_bbox=True, with_mask=True)")
    .replace('PackSegInputs', 'PackDetInputs')
    + "model['test_cfg'] = dict(rpn=dict(nms_pre=50, max_per_img=50, min_bbox_size=0, "
    "nms=dict(type='nms', iou_threshold=0.7)), rcnn=dict(score_thr=0.01, max_per_img=20, "
    "mask_thr_binary=0.5, nms=dict(type='nms', iou_threshold=0.5)))\n"
)
VALIDATED = """
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(train_dataloader['dataset'], pipeline=steps, test_mode=True),
)
val_evaluator, val_cfg = metric, dict()
"""
STEP = 'a validation step on a drawn image fails: '


@cache
def model(text):
    """A model, built once for many configs."""
    config = Config.fromstring(text, '.py')
    use_scope(config)
    torch.manual_seed(0)
    return MODELS.build(config.model)


def findings(text, change='', *, reads_data=False):
    config = Config.fromstring(f'{text}\n{change}\n{VALIDATED}', '.py')
    facts, built = Facts.of(config, ('train', 'val')), model(text)
    use_scope(config)
    with silence():
        return list(validation_findings(facts, built, built_hooks(facts)[0], reads_data=reads_data))


@pytest.mark.parametrize('text', [SEG, DET], ids=['seg', 'det'])
def test_what_is_in_order_has_no_line(text):
    assert findings(text) == []


WRONG = {
    'labels before the resizing': (
        SEG,
        'steps = [load, labels, resize, pack]',
        'it has labels of 64x90, but predictions of 120x168, the size of its file: move '
        'LoadAnnotations behind Resize in val_dataloader.dataset.pipeline',
    ),
    'labels before a crop': (
        SEG,
        "steps = [load, resize, labels, dict(type='RandomCrop', crop_size=(32, 48)), pack]",
        'it has labels of 32x48, but predictions of 120x168, the size of its file: move '
        'LoadAnnotations behind RandomCrop in val_dataloader.dataset.pipeline',
    ),
    'labels that nothing loads': (
        SEG,
        'steps = [load, resize, pack]',
        'val_dataloader.dataset.pipeline loads no gt_sem_seg: add LoadAnnotations, in tests '
        'behind Resize',
    ),
    'no original size': (
        SEG,
        "pack['meta_keys'] = ('img_path', 'img_shape')",
        "PackSegInputs in val_dataloader.dataset.pipeline does not pack 'ori_shape', which the "
        'validation needs: add it to its meta_keys',
    ),
    'no image id': (
        DET,
        "pack['meta_keys'] = ('img_path', 'img_shape', 'ori_shape', 'scale_factor')",
        "PackDetInputs in val_dataloader.dataset.pipeline does not pack 'img_id', which the "
        'validation needs: add it to its meta_keys',
    ),
    'no scale': (
        DET,
        "pack['meta_keys'] = ('img_id', 'img_shape', 'ori_shape')",
        "PackDetInputs in val_dataloader.dataset.pipeline does not pack 'scale_factor', which the "
        'validation needs: add it to its meta_keys',
    ),
    'no Resize': (
        DET,
        'steps = [load, labels, pack]',
        "no transform in val_dataloader.dataset.pipeline sets 'scale_factor', which the validation "
        'needs: add Resize behind the first',
    ),
    'no file of the metric': (
        DET,
        "metric = dict(type='CocoMetric', metric='bbox')",
        'val_evaluator: CocoMetric has no ann_file: give it the file of val_dataloader.dataset',
    ),
    'windows without steps': (
        SEG.replace("mode='whole'", "mode='slide', crop_size=(32, 32)"),
        '',
        "model.test_cfg, or a dict in it, lacks 'stride': set it",
    ),
    'a metric of mmseg under a detector': (
        DET,
        "metric = dict(type='mmseg.IoUMetric')",
        'val_evaluator: IoUMetric reads pred_sem_seg, but the model gives pred_instances: take a '
        'metric for these',
    ),
    'a metric of mmdet under a segmenter': (
        SEG,
        "metric = dict(type='mmdet.CocoMetric')",
        'val_evaluator: CocoMetric reads pred_instances, but the model gives pred_sem_seg: take a '
        'metric for these',
    ),
    'masks of a model of boxes': (
        DET.replace('with_mask=True', 'with_mask=False')
        + "model['roi_head'].update(mask_head=None, mask_roi_extractor=None)",
        '',
        "val_evaluator: CocoMetric has metric='segm', but the model gives no masks: leave it out",
    ),
}


@pytest.mark.parametrize('case', WRONG)
def test_a_mistake_that_a_step_shows_has_its_line(case):
    text, change, reason = WRONG[case]
    assert errors_of(findings(text, change)) == [STEP + reason]


GREY = "load['color_type'] = 'grayscale'"
FOUR = SEG + "model['backbone']['in_channels'] = 4\nmodel['data_preprocessor'] = None\n"


@pytest.mark.parametrize(
    ('text', 'change', 'line'),
    [
        (SEG, GREY, "1 channel (by LoadImageFromFile), and the backbone takes 3: load them by "
         "color_type='color', or set model.backbone.in_channels=1"),
        (DET, GREY, "1 channel (by LoadImageFromFile), and the backbone takes 3: load them by "
         "color_type='color', or set model.backbone.in_channels=1"),
        (FOUR, '', "3 channels (by LoadImageFromFile), and the backbone takes 4: load all bands by "
         "color_type='unchanged', or set model.backbone.in_channels=3"),
    ],
)  # fmt: skip
def test_a_loader_of_other_channels_has_its_line_before_the_step(text, change, line):
    assert errors_of(findings(text, change)) == [f'val_dataloader.dataset gives images of {line}']


MONITORS = {
    'a best checkpoint by another metric': (
        SEG,
        "default_hooks = dict(checkpoint=dict(type='CheckpointHook', save_best='bbox_mAP'))",
        "CheckpointHook.save_best is 'bbox_mAP', which is no metric of val_evaluator: name one of "
        'aAcc, mIoU, mAcc',
    ),
    'one of several': (
        SEG,
        "default_hooks = dict(checkpoint=dict(type='CheckpointHook', save_best=['mIoU', 'mDice'],"
        " rule='greater'))",
        "CheckpointHook.save_best is 'mDice', which is no metric of val_evaluator: name one of "
        'aAcc, mIoU, mAcc',
    ),
    'stopping by another metric': (
        SEG,
        "custom_hooks = [dict(type='EarlyStoppingHook', monitor='segm_mAP')]",
        "EarlyStoppingHook.monitor is 'segm_mAP', which is no metric of val_evaluator: name one "
        'of aAcc, mIoU, mAcc',
    ),
}


@pytest.mark.parametrize('case', MONITORS)
def test_metrics_that_hooks_compare_are_among_those_of_the_step(case):
    text, change, line = MONITORS[case]
    assert errors_of(findings(text, change)) == [line]
    auto = "default_hooks = dict(checkpoint=dict(type='CheckpointHook', save_best='auto'))"
    assert findings(text, auto) == []


def parts(change):
    config = Config.fromstring(f'{SEG}\n{change}', '.py')
    use_scope(config)
    with silence():
        facts = Facts.of(config, ('train', 'val'))
        return errors_of(part_findings(facts, built_hooks(facts)[1]))


PARTS = {
    'hooks without names': (
        "default_hooks = [dict(type='CheckpointHook')]",
        "default_hooks: takes hooks by name, got [{'type': 'CheckpointHook'}]",
    ),
    'averages of another toolbox': (
        "custom_hooks = [dict(type='EMAHook', ema_type='ExpMomentumEMA')]",
        "custom_hooks.0: 'ExpMomentumEMA' is not in the mmseg::model registry, but in mmdet's: "
        "write 'mmdet.ExpMomentumEMA'",
    ),
    'averages with a wrong value': (
        "custom_hooks = [dict(type='EMAHook', momentum=2.0)]",
        'custom_hooks.0: AssertionError: momentum must be in range (0.0, 1.0)but got 2.0',
    ),
    'a hook with a wrong value': (
        "default_hooks = dict(checkpoint=dict(type='CheckpointHook', save_best=3))",
        'default_hooks.checkpoint: AssertionError: "save_best" should be a str or list of str or '
        "None, but got <class 'int'>",
    ),
    'a hook without a rule': (
        "default_hooks = dict(checkpoint=dict(type='CheckpointHook', save_best='quality'))",
        'default_hooks.checkpoint: Cannot infer the rule for key quality, thus a specific rule '
        'must be specified.',
    ),
    'a schedule with a wrong value': (
        "param_scheduler = dict(type='LinearLR', start_factor=2.0, end=4)",
        'param_scheduler: Starting multiplicative factor should between 0 and 1.',
    ),
    'workers that are not there': (
        "train_dataloader['persistent_workers'] = True",
        'train_dataloader.persistent_workers=True needs workers, but num_workers is 0: leave it '
        'out, or set num_workers',
    ),
    'batches of workers that are not there': (
        'val_dataloader = dict(prefetch_factor=4)',
        'val_dataloader.prefetch_factor=4 needs workers, but num_workers is 0: leave it out, or '
        'set num_workers',
    ),
}


@pytest.mark.parametrize('case', PARTS)
def test_a_part_that_cannot_be_built_has_its_line(case):
    change, line = PARTS[case]
    __import__('mmdet.models')  # as `vit_backbones.mmdet` in custom_imports does
    assert parts(change) == [line]


def test_parts_that_can_be_built_have_none():
    assert (
        parts(
            "custom_hooks = [dict(type='EMAHook', ema_type='mmdet.ExpMomentumEMA')]\n"
            "default_hooks = dict(visualization=dict(type='SegVisualizationHook'))\n"
            "param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=50), "
            "dict(type='PolyLR', power=0.9, begin=0, by_epoch=True, convert_to_iter_based=True)]\n"
            'train_dataloader.update(persistent_workers=True, num_workers=2)'
        )
        == []
    )


def test_other_files_and_loops_are_named():
    (found,) = findings(SEG, "steps = [dict(type='LoadBiomedicalImageFromFile'), pack]")
    text = 'no validation step was tried: LoadBiomedicalImageFromFile reads other files than a '
    assert found == ('warning', f'{text}drawn image has')
    (found,) = findings(SEG, "metric = dict(type='CityscapesMetric', output_dir='out')")
    text = 'no validation step was tried: CityscapesMetric may read other files than a '
    assert found == ('warning', f'{text}drawn image has')
    assert not Path('out').exists()


def test_windows_are_tried_in_proportion_and_the_model_stays(folder):
    """Several windows of a large image, in a second; the model is as before."""
    large = SEG.replace('(96, 64)', '(2048, 1024)')
    large = large.replace("mode='whole'", "mode='slide', crop_size=(512, 512), stride=(341, 341)")
    seen, built = [], model(large)
    built.backbone.register_forward_hook(lambda m, inputs, out: seen.append(inputs[0].shape[2:]))
    before = built.training, dict(built.test_cfg)
    assert findings(large) == []
    assert (built.training, dict(built.test_cfg)) == before
    assert {tuple(each) for each in seen} == {(90, 90)}
    assert len(seen) == 12


def test_with_data_the_first_image_is_validated(folder):
    for name, value in (('images', 100), ('labels', 1)):
        (Path('seg') / name).mkdir(parents=True)
        cv2.imwrite(f'seg/{name}/a.png', np.full((50, 80), value, np.uint8))
    assert findings(SEG, reads_data=True) == []
    (found,) = findings(SEG, 'steps = [load, labels, resize, pack]', reads_data=True)
    assert found.text == (
        'a validation step on the first image fails: seg/images/a.png has labels of 60x96, but '
        'predictions of 50x80, the size of its file: move LoadAnnotations behind Resize in '
        'val_dataloader.dataset.pipeline'
    )


def _boxes(names, image=1):
    square = dict(id=1, image_id=image, category_id=1, bbox=[8, 8, 32, 32], area=1024, iscrowd=0)
    square['segmentation'] = [[8, 8, 40, 8, 40, 40, 8, 40]]
    kinds = [dict(id=i, name=name) for i, name in enumerate(names, 1)]
    images = [dict(id=image, file_name='a.png', height=64, width=96)]
    return json.dumps(dict(images=images, annotations=[square], categories=kinds))


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (_boxes(['cat', 'dog', 'cow']), None),
        (
            _boxes(['cat', 'dog', 'cow'], image=7),
            'val_evaluator.ann_file lacks images of val_dataloader.dataset: give both the same '
            'file',
        ),
        (
            _boxes(['bull']),
            'val_evaluator.ann_file lists 0 of the 3 classes of val_dataloader.dataset as '
            'categories: give both the same file, and spell the classes as it does',
        ),
    ],
    ids=['same', 'other images', 'other classes'],
)
def test_the_file_of_the_metric_is_that_of_the_dataset(content, reason, folder):
    Path('images').mkdir()
    cv2.imwrite('images/a.png', np.full((64, 96, 3), 100, np.uint8))
    Path('boxes.json').write_text(_boxes(['cat', 'dog', 'cow']))
    Path('other.json').write_text(content)
    found = findings(DET, "metric['ann_file'] = 'other.json'", reads_data=True)
    expected = [f'a validation step on the first image fails: {reason}'] if reason else []
    assert errors_of(found) == expected


def test_the_tool_shows_a_step_that_fails(check):
    wrong = 'steps = [load, labels, resize, pack]'
    Path('wrong.py').write_text(f'{SEG}\n{wrong}\n{VALIDATED}')
    code, lines = check('wrong.py')
    assert lines_of(
        lines, 'error: a validation step on a drawn image fails: it has labels of 64x90'
    )
    assert code == 1


def test_a_model_that_does_not_fit_is_not_validated(check):
    Path('det.py').write_text(DET + VALIDATED)
    _, lines = check('det.py', 'model.roi_head.bbox_head.num_classes=9')
    assert [line for line in lines if 'bbox_head is for 9 classes' in line]
    assert not [line for line in lines if STEP in line]


def test_a_model_of_no_toolbox_gets_one_warning(check, folder):
    assert lines_of(check(write_toy_config(folder))[1], 'warning: no training step was tried: Toy')


def test_a_batch_of_several_sizes_has_its_line():
    images = [torch.zeros(3, 64, 96), torch.zeros(3, 96, 64)]
    with pytest.raises(AssertionError) as raised:
        SegDataPreProcessor().eval()(dict(inputs=images, data_samples=None))
    assert reason_of(raised.value, (), object()) == (
        'val_dataloader.batch_size is above 1, and its images differ in size: set it to 1'
    )
