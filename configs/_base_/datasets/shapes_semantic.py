# The drawn shapes, semantic segmentation (mIoU with background).
_base_ = 'shapes.py'
metainfo = dict(
    classes=('background', *_base_.shapes),
    palette=[_base_.background_color, *_base_.shape_colors],
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmseg.LoadAnnotations'),
    dict(type='mmseg.Resize', scale=(192, 128), keep_ratio=False),  # the drawn size
    dict(type='mmseg.RandomFlip', prob=0.5),
    dict(type='mmseg.PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmseg.Resize', scale=(192, 128), keep_ratio=False),
    dict(type='mmseg.LoadAnnotations'),
    dict(type='mmseg.PackSegInputs'),
]

train_dataloader = dict(
    dataset=dict(
        type='mmseg.BaseSegDataset',
        data_root=_base_.data_root,
        data_prefix=dict(img_path='train', seg_map_path='semantic/train'),
        img_suffix='.png',
        seg_map_suffix='.png',
        metainfo=metainfo,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type='mmseg.BaseSegDataset',
        data_root=_base_.data_root,
        data_prefix=dict(img_path='val', seg_map_path='semantic/val'),
        img_suffix='.png',
        seg_map_suffix='.png',
        metainfo=metainfo,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='mmseg.IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
