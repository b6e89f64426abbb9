# Mask2Former on ADE20K, on a ViT-Adapter around DINOv3 ViT-L, to compare with EoMT:
# with the data, steps and rates of EoMT's recipe for DINOv2-L.
#   source: Chen et al., ICLR 2023; Cheng et al., CVPR 2022; result: not run
#   command: in README.md, for 8 GPUs
_base_ = [
    '../_base_/backbones/vit-l_dinov3.py',
    '../_base_/models/mask2former_semantic.py',
    '../_base_/datasets/eomt_ade20k.py',
    '../_base_/schedules/eomt_dinov2.py',
]
custom_imports = dict(imports=['vit_backbones.mmseg'])
model = dict(
    data_preprocessor=dict(size=_base_.crop_size, **_base_.preprocess),
    backbone=dict(
        type='ViTAdapter',
        backbone=dict(_base_.backbone, out_indices='even4', norm='none', drop_path_rate=0.0),
        num_heads=_base_.embed_dims // 64,
        norm_cfg=dict(type='SyncBN'),
    ),
    neck=None,
    decode_head=dict(
        in_channels=[_base_.embed_dims] * 4,
        num_classes=150,
        loss_cls=dict(class_weight=[1.0] * 150 + [0.1]),
    ),
    test_cfg=_base_.windows,
)
train_cfg = dict(max_iters=31 * _base_.epoch_iters, val_interval=_base_.epoch_iters)
