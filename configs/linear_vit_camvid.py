# The bar for everything else on CamVid: one 1x1 convolution on the last layer, all fine-tuned.
_base_ = 'upernet_vit_camvid.py'
model = dict(
    backbone=dict(out_indices=-1, norm='last'),
    neck=None,
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
