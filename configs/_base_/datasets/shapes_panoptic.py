# The drawn shapes, panoptic segmentation (PQ with background).
_base_ = 'shapes.py'
metainfo = dict(
    classes=(*_base_.shapes, 'background'),
    thing_classes=_base_.shapes,
    stuff_classes=('background',),
    palette=[*_base_.shape_colors, _base_.background_color],
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmdet.LoadPanopticAnnotations', with_bbox=True, with_mask=True, with_seg=True),
    dict(type='mmdet.RandomFlip', prob=0.5),
    dict(type='mmdet.PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    # Keeps the drawn size; records the scale factor, which two-stage detectors ask for.
    dict(type='mmdet.Resize', scale=(192, 128), keep_ratio=True),
    dict(type='mmdet.LoadPanopticAnnotations', with_bbox=True, with_mask=True, with_seg=True),
    dict(type='mmdet.PackDetInputs'),
]

train_dataloader = dict(
    dataset=dict(
        type='mmdet.CocoPanopticDataset',
        data_root=_base_.data_root,
        ann_file='annotations/panoptic_train.json',
        data_prefix=dict(img='train/', seg='panoptic/train/'),
        metainfo=metainfo,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type='mmdet.CocoPanopticDataset',
        data_root=_base_.data_root,
        ann_file='annotations/panoptic_val.json',
        data_prefix=dict(img='val/', seg='panoptic/val/'),
        metainfo=metainfo,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type='mmdet.CocoPanopticMetric',
    ann_file=_base_.data_root + 'annotations/panoptic_val.json',
    seg_prefix=_base_.data_root + 'panoptic/val/',
)
test_evaluator = val_evaluator
