# Mask2Former, semantic on ADE20K, with DINOv2 ViT-B.
#   source: Cheng et al., CVPR 2022, mmdet's and mmseg's schedule for ResNet-50 (batches of 16,
#     160k iterations)
#   result: not run
#   command: in README.md, for 8 GPUs
_base_ = [
    '../_base_/models/mask2former_vit-b-dinov2.py',
    'mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py',
]
custom_imports = dict(imports=['vit_backbones.mmseg', 'mmdet.models'])
model = dict(decode_head=dict(type='BatchedSegMask2FormerHead', **_base_.head), **_base_.vit)
optim_wrapper = _base_.layer_decay
