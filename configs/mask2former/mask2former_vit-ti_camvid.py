# A light Mask2Former, semantic on CamVid, with a fine-tuned ViT-Ti/16.
#   source: Cheng et al., CVPR 2022; data: CamVid, 367 + 101 images
#   command: in README.md
_base_ = [
    '../_base_/backbones/vit-ti_augreg.py',
    '../_base_/models/mask2former_semantic_light.py',
    '../_base_/datasets/camvid.py',
    '../_base_/schedules/adamw_cosine_10e.py',
    '../_base_/runtime.py',
]
custom_imports = dict(imports=['vit_backbones.mmseg'])
num_classes = 11
crop_size = (256, 256)  # small ones, for as many updates as there is time for
train_pipeline = [
    dict(each, crop_size=crop_size) if each['type'] == 'RandomCrop' else each
    for each in _base_.train_pipeline
]
model = dict(
    data_preprocessor=dict(size=crop_size, **_base_.preprocess),
    backbone=dict(out_indices='even4', norm='all', **_base_.backbone),
    neck=dict(in_channels=[_base_.embed_dims] * 4),
    decode_head=dict(
        num_classes=num_classes, loss_cls=dict(class_weight=[1.0] * num_classes + [0.1])
    ),
)
# A random head needs many updates more than it needs large batches
auto_scale_lr = dict(enable=False, base_batch_size=2)
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(
    constructor='ViTLayerDecayConstructor',
    optimizer=dict(lr=5e-4),
    paramwise_cfg=dict(decay_rate=_base_.decay_rate, custom_keys=dict(backbone=dict(lr_mult=1.0))),
)
train_cfg = dict(max_epochs=6, val_interval=6)
default_hooks = dict(checkpoint=dict(save_best='mIoU'))
