_base_ = [
    '_base_/models/mask2former_light.py',
    '_base_/datasets/shapes_instance.py',
    '_base_/runtime.py',
]
num_classes = 8
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        type='ViTFeatBackbone',
        model_name='vit_tiny_patch16_224',
        img_size=(128, 192),
        patch_size=8,
        out_indices=(1, 3, 5, 7),
        norm='all',
    ),
    neck=dict(in_channels=[192] * 4, in_strides=8),
    panoptic_head=dict(
        num_things_classes=num_classes, loss_cls=dict(class_weight=[1.0] * num_classes + [0.1])
    ),
    panoptic_fusion_head=dict(num_things_classes=num_classes),
)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0),
)
max_epochs = 4
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=0.3, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.01, by_epoch=True, begin=0, T_max=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
