# Cityscapes as EoMT's authors train on it: jitter of scale and colour, black padding, crops that
# show a class. EOMT_SIZE is the side of the crops, 1024; a test has windows of it (`windows`).
#   source: github.com/tue-mps/eomt (MIT), datasets; data: data/cityscapes
#   unlike there: mmseg's jitter adds to the brightness and scales the contrast about black
_base_ = 'mmseg::_base_/datasets/cityscapes.py'
crop_size = (int('{{$EOMT_SIZE:1024}}'),) * 2
windows = dict(mode='windows', crop_size=crop_size)
epoch_iters = 2975 // 16
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PhotoMetricDistortion', hue_delta=9),  # degrees / 2
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='UntilObjects',
        transforms=[
            dict(
                type='RandomResize',
                scale=crop_size,
                ratio_range=(0.5, 2.0),
                keep_ratio=True,
                backend='pillow',
            ),
            dict(type='RandomCrop', crop_size=crop_size),
        ],
    ),
    dict(type='PadWithBlack', size=crop_size),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    # The short side to that of a window
    dict(
        type='Resize', scale=(100 * crop_size[0], crop_size[0]), keep_ratio=True, backend='pillow'
    ),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)
train_dataloader = dict(
    batch_size=2,  # on each of 8 GPUs
    drop_last=True,
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
