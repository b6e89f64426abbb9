# A feature pyramid up to stride 4 and one 3x3 convolution on a DINOv2 ViT-S that has learned CamVid
# already, under the linear head of `linear_probe`: thin classes need cells smaller than a patch.
#   source: Long et al., Fully Convolutional Networks for Semantic Segmentation, CVPR 2015
#   command: in README.md
_base_ = '../linear_probe/linear-finetuned_vit-s-dinov2_camvid-720x540.py'
# of the training of `_base_`
learned = '{{$CAMVID_DINOV2:work_dirs/linear-finetuned_vit-s-dinov2_camvid-720x540/epoch_10.pth}}'
channels = 128
model = dict(
    backbone=dict(checkpoint=learned),
    neck=dict(
        type='SimpleFeaturePyramid',
        in_channels=[384] * 4,
        in_strides=[16] * 4,
        out_channels=channels,
        out_strides=(4, 8, 16, 32),
    ),
    decode_head=dict(
        in_channels=[channels] * 4,
        channels=channels,
        num_convs=1,
        norm_cfg=dict(type='LN2d'),
        # The inverse of each class's IoU under the linear head, on the validation images: a pixel
        # then counts for a class as soon as that raises its IoU
        loss_decode=dict(
            class_weight=[1.1, 1.1, 5.0, 1.0, 1.1, 1.1, 1.9, 1.5, 1.1, 2.0, 1.3],
        ),
    ),
)
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys=dict(backbone=dict(lr_mult=0.1), conv_seg=dict(lr_mult=5.0, decay_mult=0.0))
    )
)
train_cfg = dict(val_interval=2)
