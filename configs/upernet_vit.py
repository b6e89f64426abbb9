# UPerNet from random weights on the drawn shapes.
#   source: Xiao et al., ECCV 2018; data: drawn on first use, 1,600 + 200 images
#   command: python tools/train.py configs/upernet_vit.py
_base_ = [
    '_base_/models/upernet_light.py',
    '_base_/datasets/shapes_semantic.py',
    '_base_/schedules/adamw_cosine_4e.py',
    '_base_/runtime.py',
]
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, size=(128, 192)),
    backbone=dict(
        type='ViTFeatBackbone',
        model_name='vit_tiny_patch16_224',
        img_size=(128, 192),
        patch_size=8,
        out_indices=3,
        norm='all',
    ),
    neck=dict(in_channels=192, in_strides=8),
    decode_head=dict(num_classes=9),
)
