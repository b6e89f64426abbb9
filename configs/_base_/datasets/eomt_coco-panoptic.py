# COCO panoptic as EoMT's authors train on it: large-scale jitter, black padding, crops with objects
# only, no crowds; whole images in the tests. EOMT_SIZE is the side of the crops, 640 or 1280.
#   source: github.com/tue-mps/eomt (MIT), datasets; data: data/coco
#   unlike there: cv2 resizes masks, and a crop is drawn anew 20 times at most
_base_ = 'mmdet::_base_/datasets/coco_panoptic.py'
crop_size = (int('{{$EOMT_SIZE:640}}'),) * 2
epoch_iters = 118287 // 16
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadPanopticAnnotations', with_bbox=True, with_mask=True, with_seg=True),
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
    dict(type='LoadPanopticAnnotations', with_bbox=True, with_mask=True, with_seg=True),
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
