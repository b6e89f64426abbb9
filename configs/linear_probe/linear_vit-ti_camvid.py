# A linear probe on CamVid: one 1x1 convolution on the last layer of a frozen ViT-Ti/16.
#   data: CamVid, 367 + 101 images
#   command: in README.md
_base_ = [
    '../_base_/backbones/vit-ti_augreg.py',
    '../_base_/models/linear.py',
    '../_base_/datasets/camvid.py',
    '../_base_/schedules/adamw_cosine_10e.py',
    '../_base_/runtime.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size, **_base_.preprocess),
    backbone=dict(frozen_stages=_base_.depth, **_base_.backbone),
    decode_head=dict(in_channels=_base_.embed_dims, channels=_base_.embed_dims, num_classes=11),
)
default_hooks = dict(checkpoint=dict(save_best='mIoU'))
