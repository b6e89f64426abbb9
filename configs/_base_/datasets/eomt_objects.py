# What eomt_coco-instance.py and eomt_coco-panoptic.py share, as EoMT's authors train on COCO:
# large-scale jitter, crops with objects only, no crowds, black padding; whole images in the tests.
# EOMT_SIZE is the side of the crops, 640 or 1280.
#   source: github.com/tue-mps/eomt (MIT), datasets; data: data/coco
#   unlike there: cv2 resizes masks, and a crop is drawn anew 20 times at most
crop_size = (int('{{$EOMT_SIZE:640}}'),) * 2
padded = dict(type='PadWithBlack', size=crop_size)
jitter = [
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
    padded,
    dict(type='PackDetInputs'),
]
whole = [dict(type='Resize', scale=crop_size, keep_ratio=True, backend='pillow'), padded]
packed = dict(
    type='PackDetInputs',
    meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
loader = dict(batch_size=2, batch_sampler=None, drop_last=True)  # on each of 8 GPUs
