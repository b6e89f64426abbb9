# Mask2Former, semantic on ADE20K, with DINOv2 ViT-B.
#   source: Cheng et al., CVPR 2022, mmdet's and mmseg's schedule for ResNet-50 (batches of 16,
#     160k iterations); layer decay for plain ViTs as in EoMT (Kerssies et al., CVPR 2025)
#   result: not run
#   command: in README.md, for 8 GPUs
_base_ = [
    '../_base_/backbones/vit-b_dinov2.py',
    'mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py',
]
custom_imports = dict(imports=['vit_backbones', 'mmdet.models'])
model = dict(
    data_preprocessor=_base_.preprocess,
    backbone=dict(_delete_=True, out_indices='even4', norm='all', **_base_.backbone),
    neck=dict(type='SimpleFeaturePyramid', in_channels=[_base_.embed_dims] * 4),
    decode_head=dict(in_channels=[256] * 4),
)
optim_wrapper = dict(
    constructor='ViTLayerDecayConstructor',
    paramwise_cfg=dict(decay_rate=_base_.decay_rate, custom_keys=dict(backbone=dict(lr_mult=1.0))),
)
