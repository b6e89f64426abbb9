# UPerNet on a fine-tuned ViT-Ti/16: four of its layers at stride 8, straight into the head.
#   source: Xiao et al., ECCV 2018; data: CamVid, 367 + 101 images
#   command: in README.md
_base_ = [
    '../_base_/backbones/vit-ti_augreg.py',
    '../_base_/models/upernet_light.py',
    '../_base_/datasets/camvid.py',
    '../_base_/schedules/adamw_cosine_10e.py',
    '../_base_/runtime.py',
]
custom_imports = dict(imports=['vit_backbones.mmseg'])
# Until auxiliary_iters the head has no gradients; matters only in several processes
find_unused_parameters = True
model = dict(
    type='AuxiliaryEncoderDecoder',
    auxiliary_iters=184,  # one epoch
    data_preprocessor=dict(size=_base_.crop_size, **_base_.preprocess),
    backbone=dict(_base_.backbone, out_indices='even4', norm='all', out_stride=8),
    neck=None,  # its random layers would keep what the weights know from the head for epochs
    decode_head=dict(in_channels=[_base_.embed_dims] * 4, num_classes=11),
)
# A random head needs many updates more than it needs large batches
auto_scale_lr = dict(enable=False, base_batch_size=2)
train_dataloader = dict(batch_size=2)
# Logits grow slowly through 64 channels, and rare classes wait for them: larger steps, no decay
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(conv_seg=dict(lr_mult=20.0, decay_mult=0.0)))
)
default_hooks = dict(checkpoint=dict(save_best='mIoU'))
