# EoMT, semantic on ADE20K, with DINOv2 ViT-L.
#   source: Kerssies et al., CVPR 2025; github.com/tue-mps/eomt (MIT),
#     configs/dinov2/ade20k/semantic (batches of 16, 31 epochs)
#   result: not run; the authors report mIoU 58.4
#   command: in README.md, for 8 GPUs
_base_ = [
    '../_base_/backbones/vit-l_dinov2-reg.py',
    '../_base_/models/eomt_semantic.py',
    '../_base_/datasets/eomt_ade20k.py',
    '../_base_/schedules/eomt_dinov2.py',
]
custom_imports = dict(imports=['vit_backbones.mmseg'])
model = dict(
    data_preprocessor=dict(size=_base_.crop_size, **_base_.preprocess),
    backbone=dict(_base_.backbone, img_size=_base_.crop_size, drop_path_rate=0.0),
    decode_head=dict(num_classes=150, num_blocks=_base_.depth // 12 + 2),
    test_cfg=_base_.windows,
)
train_cfg = dict(max_iters=31 * _base_.epoch_iters, val_interval=_base_.epoch_iters)
default_hooks = dict(checkpoint=dict(save_best='mIoU'))
