# UPerNet on a fine-tuned ViT-Ti/16, one level from each of four layers.
#   source: Xiao et al., ECCV 2018; Li et al., ECCV 2022 (the pyramid)
#   data: CamVid, 367 + 101 images; weights: ImageNet ViT-Ti/16, timm keys
#   result: not run at full length yet; half of it (5 epochs, 23 minutes on one core): mIoU 55.7 on
#   val, 2026-11-21, below the linear head's 62.6
#   command: CAMVID_ROOT=... VIT_TINY=... python tools/train.py configs/upernet_vit_camvid.py
_base_ = [
    '_base_/models/upernet_light.py',
    '_base_/datasets/camvid.py',
    '_base_/schedules/adamw_cosine_10e.py',
    '_base_/runtime.py',
]
custom_imports = dict(imports=['vit_backbones', 'vit_backbones.training.auxiliary.encoder_decoder'])
model = dict(
    type='AuxiliaryEncoderDecoder',
    auxiliary_iters=184,  # one epoch
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
# A random head needs many updates more than it needs large batches
train_dataloader = dict(batch_size=2)
# Logits grow slowly through 64 channels, and rare classes wait for them: larger steps, no decay
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(conv_seg=dict(lr_mult=200.0, decay_mult=0.0)))
)
default_hooks = dict(checkpoint=dict(save_best='mIoU'))
