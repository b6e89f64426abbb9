# UPerNet (Xiao et al., Unified Perceptual Parsing for Scene Understanding, ECCV 2018), light: 64
# channels instead of 512. No backbone and no number of classes: a config adds both, and the neck's
# `in_channels`.
default_scope = 'mmseg'
channels = 64

model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    ),
    neck=dict(type='SimpleFeaturePyramid', out_channels=channels, out_strides=(4, 8, 16, 32)),
    decode_head=dict(
        type='UPerHead',
        in_channels=[channels] * 4,
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=channels,
        dropout_ratio=0.1,
        # Not BN: the coarsest pool has one value an image, and batches are small
        norm_cfg=dict(type='GN', num_groups=1),
        align_corners=False,
        loss_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=False, avg_non_ignore=True, loss_weight=1.0
        ),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
