# COCO instances as EoMT's authors train on them; see eomt_coco-panoptic.py.
_base_ = 'mmdet::_base_/datasets/coco_instance.py'
crop_size = (int('{{$EOMT_SIZE:640}}'),) * 2
epoch_iters = 117266 // 16  # images with objects
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='UntilObjects',
        transforms=[
            dict(
                type='RandomResize',
                scale=crop_size,
                ratio_range=(0.1, 2.0),
                keep_ratio=True,
                backend='pillow',
            ),
            dict(
                type='RandomCrop',
                crop_size=crop_size,
                recompute_bbox=True,
                allow_negative_crop=True,
            ),
            dict(
                type='FilterAnnotations',
                min_gt_bbox_wh=(1e-5, 1e-5),
                by_mask=True,
                keep_empty=False,
            ),
        ],
    ),
    dict(type='PadWithBlack', size=crop_size),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=crop_size, keep_ratio=True, backend='pillow'),
    dict(type='PadWithBlack', size=crop_size),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=2,  # on each of 8 GPUs
    batch_sampler=None,
    drop_last=True,
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(metric=['segm'])
test_evaluator = val_evaluator
