# Mask2Former, instance masks on COCO, with DINOv2 ViT-B.
#   source: Cheng et al., CVPR 2022, mmdet's and mmseg's schedule for ResNet-50 (batches of 16,
#     50 epochs)
#   result: not run
#   command: in README.md, for 8 GPUs
_base_ = [
    '../_base_/models/mask2former_vit-b-dinov2.py',
    'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
]
custom_imports = dict(imports=['vit_backbones.mmdet'])
model = dict(panoptic_head=dict(type='BatchedMask2FormerHead', **_base_.head), **_base_.vit)
optim_wrapper = _base_.layer_decay
# The panoptic masks that mmdet's config still names; whoever has none need not get them
train_dataloader = dict(dataset=dict(data_prefix=dict(_delete_=True, img='train2017/')))
val_dataloader = dict(dataset=dict(data_prefix=dict(_delete_=True, img='val2017/')))
test_dataloader = val_dataloader
