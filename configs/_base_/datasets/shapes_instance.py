# The drawn shapes, instance segmentation (mask AP).
_base_ = 'shapes.py'
metainfo = dict(classes=_base_.shapes, palette=_base_.shape_colors)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='mmdet.Resize', scale=(192, 128), keep_ratio=True),  # the drawn size
    dict(type='mmdet.RandomFlip', prob=0.5),
    dict(type='mmdet.PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    # Keeps the drawn size; records the scale factor, which two-stage detectors ask for.
    dict(type='mmdet.Resize', scale=(192, 128), keep_ratio=True),
    dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='mmdet.PackDetInputs'),
]

train_dataloader = dict(
    dataset=dict(
        type='mmdet.CocoDataset',
        data_root=_base_.data_root,
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='train/'),
        metainfo=metainfo,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type='mmdet.CocoDataset',
        data_root=_base_.data_root,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='val/'),
        metainfo=metainfo,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type='mmdet.CocoMetric',
    ann_file=_base_.data_root + 'annotations/instances_val.json',
    metric=['segm'],
)
test_evaluator = val_evaluator
