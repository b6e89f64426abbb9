# ADE20K as EoMT's authors train on it: jitter of scale and colour, black padding, crops that
# show a class. EOMT_SIZE is the side of the crops, 512; a test has windows of it (`windows`).
#   source: github.com/tue-mps/eomt (MIT), datasets; data: data/ade/ADEChallengeData2016
#   unlike there: mmseg's jitter adds to the brightness and scales the contrast about black
_base_ = 'mmseg::_base_/datasets/ade20k.py'
crop_size = (int('{{$EOMT_SIZE:512}}'),) * 2
windows = dict(mode='windows', crop_size=crop_size)
epoch_iters = 20210 // 16
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
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
    dict(type='LoadAnnotations', reduce_zero_label=True),
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
