# EoMT, panoptic on COCO, with DINOv2 ViT-B.
#   source: Kerssies et al., CVPR 2025; github.com/tue-mps/eomt (MIT),
#     configs/dinov2/coco/panoptic (batches of 16, 12 epochs)
#   result: not run; the authors report PQ 50.6, and 51.6 after 24 epochs
#   command: in README.md, for 8 GPUs
_base_ = [
    '../_base_/backbones/vit-b_dinov2-reg.py',
    '../_base_/models/eomt.py',
    '../_base_/datasets/eomt_coco-panoptic.py',
    '../_base_/schedules/eomt_dinov2.py',
]
custom_imports = dict(imports=['vit_backbones.mmdet'])
model = dict(
    data_preprocessor=_base_.preprocess,
    backbone=dict(_base_.backbone, img_size=_base_.crop_size, drop_path_rate=0.0),
    panoptic_head=dict(
        num_things_classes=80,
        num_stuff_classes=53,
        num_blocks=_base_.depth // 12 + 2,
    ),
)
train_cfg = dict(max_iters=12 * _base_.epoch_iters, val_interval=_base_.epoch_iters)
