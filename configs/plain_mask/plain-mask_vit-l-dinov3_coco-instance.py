# The plain mask head, instances on COCO, on a frozen DINOv3 ViT-L.
#   source: github.com/tue-mps/pmt (MIT), image/configs/coco/instance (batches of 16, 12 epochs)
#   result: not run; the authors report mask AP 45.4
#   command: in README.md, for 8 GPUs
_base_ = [
    '../_base_/backbones/vit-l_dinov3.py',
    '../_base_/models/plain_mask.py',
    '../_base_/datasets/eomt_coco-instance.py',
    '../_base_/schedules/plain_mask.py',
]
custom_imports = dict(imports=['vit_backbones.mmdet'])
model = dict(
    data_preprocessor=_base_.preprocess,
    backbone=dict(_base_.backbone, out_indices='even4', norm='all', frozen_stages=_base_.depth),
    panoptic_head=dict(
        in_channels=[_base_.embed_dims] * 4,
        num_things_classes=80,
        annealing=[(0.0, 3000 / (12 * _base_.epoch_iters))],
    ),
    panoptic_fusion_head=dict(num_things_classes=80),
)
train_cfg = dict(max_iters=12 * _base_.epoch_iters, val_interval=_base_.epoch_iters)
