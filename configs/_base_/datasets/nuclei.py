# Nuclei of the Data Science Bowl 2018, stage 1, corrected (Caicedo et al., Nature Methods 2019;
# CC0): microscopy of many kinds and sizes, one class, up to 375 objects an image. 500 images to
# train on, 84 to validate.
# NUCLEI_ROOT holds images/{train,val} and annotations/instances_{train,val}.json.
_base_ = 'loaders.py'
data_root = '{{$NUCLEI_ROOT:data/nuclei}}'
crop_size = (256, 256)
metainfo = dict(classes=('nucleus',), palette=[(220, 20, 60)])

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomResize', scale=(512, 512), ratio_range=(0.5, 1.25), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, recompute_bbox=True, allow_negative_crop=True),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-5, 1e-5), by_mask=True),
    dict(type='RandomFlip', prob=0.75, direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(384, 384), keep_ratio=True),  # near to what crops show
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='images/train/'),
        metainfo=metainfo,
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='images/val/'),
        metainfo=metainfo,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
# `segm_mAP` counts the best 100 objects an image, which hold 79 % of all; `nucleus_precision` is
# the same average precision over the best 200.
val_evaluator = dict(
    type='CocoMetric',
    ann_file=data_root + '/annotations/instances_val.json',
    metric=['segm'],
    proposal_nums=(100, 150, 200),
    classwise=True,
)
test_evaluator = val_evaluator
