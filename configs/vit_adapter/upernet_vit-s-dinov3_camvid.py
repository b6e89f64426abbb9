# A light UPerNet on CamVid, on a ViT-Adapter around a frozen DINOv3 ViT-S.
#   source: DINOv3 (arXiv 2508.10104), which freezes the ViT; data: CamVid, 367 + 101 images
#   result: not run
#   command: in README.md
_base_ = [
    '../_base_/backbones/vit-s_dinov3.py',
    '../_base_/models/upernet_light.py',
    '../_base_/datasets/camvid.py',
    '../_base_/schedules/adamw_cosine_10e.py',
    '../_base_/runtime.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size, **_base_.preprocess),
    backbone=dict(
        type='ViTAdapter',
        backbone=dict(
            out_indices='even4', norm='none', frozen_stages=_base_.depth, **_base_.backbone
        ),
        num_heads=_base_.embed_dims // 64,
    ),
    neck=None,
    decode_head=dict(in_channels=[_base_.embed_dims] * 4, num_classes=11),
)
# The adapter is new and learns at the full rate
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=1.0))))
default_hooks = dict(checkpoint=dict(save_best='mIoU'))
