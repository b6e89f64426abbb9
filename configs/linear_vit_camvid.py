# One 1x1 convolution on the last layer of a fine-tuned ViT-Ti/16: the bar for every other head.
#   data: CamVid, 367 + 101 images; weights: ImageNet ViT-Ti/16, timm keys
#   result: mIoU 62.6 on val after 34 minutes on one core, 2026-11-21
#   command: CAMVID_ROOT=... VIT_TINY=... python tools/train.py configs/linear_vit_camvid.py
_base_ = [
    '_base_/models/linear.py',
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
    ),
    decode_head=dict(in_channels=192, channels=192, num_classes=11),
)
default_hooks = dict(checkpoint=dict(save_best='mIoU'))
