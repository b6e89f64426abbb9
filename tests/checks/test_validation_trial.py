"""tools/check_config.py tries a validation step, and builds the parts around the model."""

from pathlib import Path

import pytest
from checked_configs import DETECTOR, SEGMENTER, lines_of

SEG = (
    SEGMENTER
    + """
metric = dict(type='IoUMetric', iou_metrics=['mIoU'])
load, labels = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')
resize = dict(type='Resize', scale=(96, 64), keep_ratio=True)
pack = dict(type='PackSegInputs')
def validate(pipeline, metric):
    return dict(
        val_dataloader=dict(
            batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(train_dataloader['dataset'], pipeline=pipeline, test_mode=True),
        ),
        val_evaluator=metric, val_cfg=dict(),
    )
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
RIGHT = 'globals().update(validate([load, resize, labels, pack], metric)); del validate\n'
STEP = 'error: a validation step on a drawn image fails: '


def write(text, more='', *, end=RIGHT):
    Path('tried.py').write_text(text + more + '\n' + end)
    return 'tried.py'


@pytest.mark.parametrize('text', [SEG, DET], ids=['seg', 'det'])
def test_what_is_in_order_has_no_line(text, check):
    code, lines = check(write(text))
    assert lines_of(lines)
    assert code == 0


WRONG = {
    'labels before the resizing': (
        SEG,
        'globals().update(validate([load, labels, resize, pack], metric)); del validate\n',
        STEP + 'it has labels of 64x90, but predictions of 120x168, the size of its file: move '
        'LoadAnnotations behind Resize in val_dataloader.dataset.pipeline',
    ),
    'labels before a crop': (
        SEG,
        "crop = dict(type='RandomCrop', crop_size=(32, 48))\n"
        'globals().update(validate([load, resize, labels, crop, pack], metric)); del validate\n',
        STEP + 'it has labels of 32x48, but predictions of 120x168, the size of its file: move '
        'LoadAnnotations behind RandomCrop in val_dataloader.dataset.pipeline',
    ),
    'labels that nothing loads': (
        SEG,
        'globals().update(validate([load, resize, pack], metric)); del validate\n',
        STEP + 'val_dataloader.dataset.pipeline loads no gt_sem_seg: add LoadAnnotations, in '
        'tests behind Resize',
    ),
    'no original size': (
        SEG,
        "pack['meta_keys'] = ('img_path', 'img_shape')\n" + RIGHT,
        STEP + "PackSegInputs in val_dataloader.dataset.pipeline does not pack 'ori_shape', which "
        'the validation needs: add it to its meta_keys',
    ),
    'no image id': (
        DET,
        "pack['meta_keys'] = ('img_path', 'img_shape', 'ori_shape', 'scale_factor')\n" + RIGHT,
        STEP + "PackDetInputs in val_dataloader.dataset.pipeline does not pack 'img_id', which "
        'the validation needs: add it to its meta_keys',
    ),
    'no scale': (
        DET,
        "pack['meta_keys'] = ('img_id', 'img_shape', 'ori_shape')\n" + RIGHT,
        STEP + "PackDetInputs in val_dataloader.dataset.pipeline does not pack 'scale_factor', "
        'which the validation needs: add it to its meta_keys',
    ),
    'a metric of mmseg under a detector': (
        DET,
        "metric = dict(type='mmseg.IoUMetric')\n" + RIGHT,
        STEP + 'val_evaluator: IoUMetric reads pred_sem_seg, but the model gives pred_instances: '
        'take a metric for these',
    ),
    'a metric of mmdet under a segmenter': (
        SEG,
        "metric = dict(type='mmdet.CocoMetric', ann_file='boxes.json')\n" + RIGHT,
        'error: val_dataloader or val_evaluator: ',
    ),
    'a panoptic metric for objects': (
        DET,
        "metric = dict(type='CocoPanopticMetric')\n" + RIGHT,
        STEP + 'val_evaluator: CocoPanopticMetric reads pred_panoptic_seg, but the model gives '
        'pred_instances: take a metric for these',
    ),
    'masks of a model of boxes': (
        DET,
        "model['roi_head'].update(mask_head=None, mask_roi_extractor=None)\n"
        "pipeline[1]['with_mask'] = labels['with_mask'] = False\n" + RIGHT,
        STEP + "val_evaluator: CocoMetric has metric='segm', but the model gives no masks: leave "
        'it out',
    ),
    'a best checkpoint by another metric': (
        DET,
        "default_hooks = dict(checkpoint=dict(type='CheckpointHook', save_best='mIoU'))\n" + RIGHT,
        "error: CheckpointHook.save_best is 'mIoU', which is no metric of val_evaluator: name one "
        'of coco/bbox_mAP, coco/bbox_mAP_50, ',
    ),
    'stopping by another metric': (
        SEG,
        "custom_hooks = [dict(type='EarlyStoppingHook', monitor='bbox_mAP')]\n" + RIGHT,
        "error: EarlyStoppingHook.monitor is 'bbox_mAP', which is no metric of val_evaluator: "
        'name one of aAcc, mIoU, mAcc',
    ),
    'averages of another toolbox': (
        SEG,
        "import_module = __import__('importlib').import_module; import_module('mmdet.models'); "
        'del import_module\n'
        "custom_hooks = [dict(type='EMAHook', ema_type='ExpMomentumEMA')]\n" + RIGHT,
        "error: custom_hooks.0: 'ExpMomentumEMA' is not in the mmseg::model registry, but in "
        "mmdet's: write 'mmdet.ExpMomentumEMA'",
    ),
    'a hook with a wrong value': (
        SEG,
        "default_hooks = dict(logger=dict(type='LoggerHook', interval=-1))\n" + RIGHT,
        'error: default_hooks.logger: interval must be greater than 0',
    ),
    'a hook with a mistake in a rule': (
        SEG,
        "default_hooks = dict(checkpoint=dict(type='CheckpointHook', save_best='quality'))\n"
        + RIGHT,
        'error: default_hooks.checkpoint: Cannot infer the rule for quality, thus a specific rule',
    ),
    'a schedule behind the end': (
        SEG,
        "param_scheduler = [dict(type='LinearLR', begin=1, start_factor=0.1)]\n" + RIGHT,
        'error: param_scheduler.0: end should be larger than begin, but got begin=1, end=1: a sched'
        'ule of param_scheduler begins when the training has ended',
    ),
    'a schedule with a wrong value': (
        SEG,
        "param_scheduler = dict(type='LinearLR', start_factor=2.0, end=4)\n" + RIGHT,
        'error: param_scheduler: Starting multiplicative factor should be greater than 0 and less '
        'or equal to 1.',
    ),
    'a schedule without its argument': (
        SEG,
        "param_scheduler = [dict(type='MultiStepLR', gamma=0.1)]\n" + RIGHT,
        'error: param_scheduler.0: ',
    ),
    'workers that are not there': (
        SEG,
        "train_dataloader['persistent_workers'] = True\n" + RIGHT,
        'error: train_dataloader.persistent_workers=True needs workers, but num_workers is 0: '
        'leave it out, or set num_workers',
    ),
}


@pytest.mark.parametrize('case', WRONG)
def test_a_mistake_has_its_line(case, check):
    text, end, *beginnings = WRONG[case]
    code, lines = check(write(text, end=end))
    assert lines_of(lines, *beginnings)
    assert code == 1
