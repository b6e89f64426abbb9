# The plain mask head, panoptic on COCO, on a frozen DINOv3 ViT-L.
#   source: github.com/tue-mps/pmt (MIT), image/configs/coco/panoptic (batches of 16, 12 epochs)
#   result: not run; the authors report PQ 56.1, and 58.1 at 1280
#   command: in README.md, for 8 GPUs
_base_ = [
    '../_base_/backbones/vit-l_dinov3.py',
    '../_base_/models/plain_mask.py',
    '../_base_/datasets/eomt_coco-panoptic.py',
    '../_base_/schedules/plain_mask.py',
]
custom_imports = dict(imports=['vit_backbones.mmdet'])
model = dict(
    data_preprocessor=_base_.preprocess,
    backbone=dict(_base_.backbone, out_indices='even4', norm='all', frozen_stages=_base_.depth),
    panoptic_head=dict(
        in_channels=[_base_.embed_dims] * 4,
        num_things_classes=80,
        num_stuff_classes=53,
        annealing=[(0.0, 3000 / (12 * _base_.epoch_iters))],
    ),
    panoptic_fusion_head=dict(num_things_classes=80, num_stuff_classes=53),
    test_cfg=dict(panoptic_on=True, instance_on=False),
)
train_cfg = dict(max_iters=12 * _base_.epoch_iters, val_interval=_base_.epoch_iters)
