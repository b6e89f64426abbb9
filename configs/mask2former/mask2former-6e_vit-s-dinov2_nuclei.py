# Mask2Former on nuclei with DINOv2 ViT-S.
#   command: in README.md
_base_ = 'mask2former-6e_vit-ti_nuclei.py'
# the figures of vit-s_dinov2-file.py
model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(
        model_name='vit_small_patch14_dinov2.lvd142m',
        checkpoint='{{$DINOV2_SMALL:weights/dinov2_vits14.safetensors}}',
        patch_size=16,
    ),
    neck=dict(in_channels=[384] * 4),
)
