# UPerNet on ADE20K, on a ViT-Adapter around DINOv3 ViT-B, all of it trained.
#   source: Chen et al., Vision Transformer Adapter for Dense Predictions, ICLR 2023; its repository
#     trains DeiT-S so (lr 6e-5, weight decay 0.01, batches of 16, 160k iterations); the adapter is
#     that of DINOv3 (arXiv 2508.10104)
#   result: not run
#   command: in README.md, for 8 GPUs
_base_ = [
    '../_base_/backbones/vit-b_dinov3.py',
    'mmseg::_base_/models/upernet_r50.py',
    '../_base_/schedules/finetune_ade20k_160k.py',
]
model = dict(
    pretrained=None,
    data_preprocessor=dict(size=_base_.crop_size, **_base_.preprocess),
    backbone=dict(
        _delete_=True,
        type='ViTAdapter',
        backbone=dict(out_indices='even4', norm='none', **_base_.backbone),
        num_heads=_base_.embed_dims // 64,
        norm_cfg=dict(type='SyncBN'),
    ),
    decode_head=dict(in_channels=[_base_.embed_dims] * 4, num_classes=150),
    auxiliary_head=dict(in_channels=_base_.embed_dims, num_classes=150),
    test_cfg=_base_.slide,
)
optim_wrapper = dict(
    optimizer=dict(lr=6e-5, weight_decay=0.01), paramwise_cfg=dict(decay_rate=_base_.decay_rate)
)
