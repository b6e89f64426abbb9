# EoMT, panoptic on COCO, with DINOv3 ViT-S.
#   source: Kerssies et al., CVPR 2025; github.com/tue-mps/eomt (MIT),
#     configs/dinov3/coco/panoptic (batches of 16, 24 epochs)
#   result: not run; the authors report PQ 47.2
#   command: in README.md, for 8 GPUs
_base_ = [
    '../_base_/backbones/vit-s_dinov3.py',
    '../_base_/models/eomt.py',
    '../_base_/datasets/eomt_coco-panoptic.py',
    '../_base_/schedules/eomt_dinov3.py',
]
custom_imports = dict(imports=['vit_backbones.mmdet'])
model = dict(
    data_preprocessor=_base_.preprocess,
    backbone=dict(_base_.backbone, img_size=_base_.crop_size, drop_path_rate=0.0),
    panoptic_head=dict(
        num_things_classes=80,
        num_stuff_classes=53,
        num_blocks=_base_.depth // 12 + 2,
        annealing=[(0.0, 3000 / (24 * _base_.epoch_iters))],
    ),
)
train_cfg = dict(max_iters=24 * _base_.epoch_iters, val_interval=_base_.epoch_iters)
