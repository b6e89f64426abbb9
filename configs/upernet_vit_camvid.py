_base_ = [
    '_base_/models/upernet_light.py',
    '_base_/datasets/camvid.py',
    '_base_/schedules/adamw_cosine_10e.py',
    '_base_/runtime.py',
]
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, size=(352, 480)),
    backbone=dict(
        type='ViTFeatBackbone',
        model_name='vit_tiny_patch16_224',
        checkpoint='{{$VIT_TINY:weights/vit_tiny_patch16_224.safetensors}}',
        out_indices='even4',
        norm='all',
    ),
    neck=dict(in_channels=[192] * 4, in_strides=16),
    decode_head=dict(num_classes=11),
)
