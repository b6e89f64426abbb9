# DINO (Zhang et al., DINO: DETR with Improved DeNoising Anchor Boxes, ICLR 2023) on the ViT and the
# pyramid of vitdet.py: mmdet's recipe for ResNet-50, with its data and 12 epochs in batches of 16.
# A config adds the backbone, its `window_block_indexes`, the neck's `in_channels` and `decay_rate`.
#   source: detrex (Apache-2.0), projects/dino, dino_vitdet: strides 8 to 64, and a warm-up, without
#     which it was not stable. Other than there: layer decay as in ViTDet, in place of a tenth of
#     the rate for the whole ViT; no ChannelMapper behind the pyramid, whose maps have 256 channels
_base_ = ['mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', 'vitdet.py']
custom_imports = dict(imports=['vit_backbones'])
model = dict(
    data_preprocessor=dict(pad_size_divisor=64),  # the coarsest stride
    backbone=_base_.parts.backbone,
    neck=_base_.parts.neck | dict(out_channels=256, out_strides=(8, 16, 32), num_outs=4),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
optim_wrapper = dict(
    constructor='ViTLayerDecayConstructor',
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=1.0))),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, end=250),
    dict(type='MultiStepLR', milestones=[11], gamma=0.1),
]
