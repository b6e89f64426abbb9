# What Mask2Former recipes of mmdet and mmseg get for ResNet-50: DINOv2 ViT-B, whose four maps go
# into a pyramid, and layer decay as in EoMT (Kerssies et al., CVPR 2025).
# For another backbone, change `_base_`. A recipe adds its data_preprocessor, head and schedule.
_base_ = '../backbones/vit-b_dinov2.py'
vit = dict(
    data_preprocessor=_base_.preprocess,
    backbone=dict(_delete_=True, out_indices='even4', norm='all', **_base_.backbone),
    neck=dict(type='SimpleFeaturePyramid', in_channels=[_base_.embed_dims] * 4),
)
head = dict(in_channels=[256] * 4)
layer_decay = dict(
    constructor='ViTLayerDecayConstructor',
    paramwise_cfg=dict(decay_rate=_base_.decay_rate, custom_keys=dict(backbone=dict(lr_mult=1.0))),
)
