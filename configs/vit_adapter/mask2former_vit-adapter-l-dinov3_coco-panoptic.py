# Mask2Former, panoptic on COCO, on a ViT-Adapter around DINOv3 ViT-L, to compare with EoMT:
# with the data, steps and rates of EoMT's recipe for DINOv2-L.
#   source: Chen et al., ICLR 2023; Cheng et al., CVPR 2022; result: not run
#   command: in README.md, for 8 GPUs
_base_ = [
    '../_base_/backbones/vit-l_dinov3.py',
    '../_base_/models/mask2former.py',
    '../_base_/datasets/eomt_coco-panoptic.py',
    '../_base_/schedules/eomt_dinov2.py',
]
custom_imports = dict(imports=['vit_backbones.mmdet'])
model = dict(
    data_preprocessor=_base_.preprocess,
    backbone=dict(
        type='ViTAdapter',
        backbone=dict(_base_.backbone, out_indices='even4', norm='none', drop_path_rate=0.0),
        num_heads=_base_.embed_dims // 64,
        norm_cfg=dict(type='SyncBN'),
    ),
    neck=None,
    panoptic_head=dict(
        in_channels=[_base_.embed_dims] * 4,
        num_things_classes=80,
        num_stuff_classes=53,
        loss_cls=dict(class_weight=[1.0] * 133 + [0.1]),
    ),
    panoptic_fusion_head=dict(num_things_classes=80, num_stuff_classes=53),
    test_cfg=dict(panoptic_on=True, instance_on=False),
)
train_cfg = dict(max_iters=12 * _base_.epoch_iters, val_interval=_base_.epoch_iters)
