# EoMT, semantic on ADE20K, with DINOv3 ViT-L.
#   source: Kerssies et al., CVPR 2025; github.com/tue-mps/eomt (MIT),
#     configs/dinov3/ade20k/semantic (batches of 16, 16 epochs)
#   All of it learns at 2e-4: the release says llrd 1.0 and lr_mult 0.1, but its code never gets to
#     lr_mult. Whether the 59.5 come from this code is not said.
#   result: not run; the authors report mIoU 59.5
#   command: in README.md, for 8 GPUs
_base_ = [
    '../_base_/backbones/vit-l_dinov3.py',
    '../_base_/models/eomt_semantic.py',
    '../_base_/datasets/eomt_ade20k.py',
    '../_base_/schedules/eomt_dinov3.py',
]
custom_imports = dict(imports=['vit_backbones.mmseg'])
model = dict(
    data_preprocessor=dict(size=_base_.crop_size, **_base_.preprocess),
    backbone=dict(_base_.backbone, img_size=_base_.crop_size, drop_path_rate=0.0),
    decode_head=dict(
        num_classes=150,
        num_blocks=_base_.depth // 12 + 2,
        annealing=[(0.0, 3000 / (16 * _base_.epoch_iters))],
    ),
    test_cfg=_base_.windows,
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=1.0))
train_cfg = dict(max_iters=16 * _base_.epoch_iters, val_interval=_base_.epoch_iters)
default_hooks = dict(checkpoint=dict(save_best='mIoU'))
