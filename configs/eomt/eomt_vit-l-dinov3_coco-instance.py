# EoMT, instances on COCO, with DINOv3 ViT-L.
#   source: Kerssies et al., CVPR 2025; github.com/tue-mps/eomt (MIT),
#     configs/dinov3/coco/instance (batches of 16, 12 epochs)
#   result: not run; the authors report mask AP 45.9, and 49.9 at 1280
#   command: in README.md, for 8 GPUs
_base_ = [
    '../_base_/backbones/vit-l_dinov3.py',
    '../_base_/models/eomt.py',
    '../_base_/datasets/eomt_coco-instance.py',
    '../_base_/schedules/eomt_dinov3.py',
]
custom_imports = dict(imports=['vit_backbones.mmdet'])
model = dict(
    data_preprocessor=_base_.preprocess,
    backbone=dict(_base_.backbone, img_size=_base_.crop_size, drop_path_rate=0.0),
    panoptic_head=dict(num_things_classes=80, num_blocks=_base_.depth // 12 + 2),
)
train_cfg = dict(max_iters=12 * _base_.epoch_iters, val_interval=_base_.epoch_iters)
