# EoMT from random weights on the drawn shapes.
#   source: Kerssies et al., CVPR 2025; data: drawn on first use, 1,600 + 200 images
#   result: not run
#   command: in README.md
_base_ = [
    '../_base_/models/vit-ti_random.py',
    '../_base_/models/eomt.py',
    '../_base_/datasets/shapes_instance.py',
    '../_base_/schedules/eomt_10e.py',
    '../_base_/runtime.py',
]
custom_imports = dict(imports=['vit_backbones.mmdet'])
model = dict(
    data_preprocessor=_base_.preprocess,
    backbone=dict(_base_.backbone, out_indices=-1),
    panoptic_head=dict(num_things_classes=8, num_blocks=3, num_queries=20),
    test_cfg=dict(max_per_image=20),
)
# Nothing is known yet that a high rate, or a late start, could spare
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(decay_rate=1.0))
param_scheduler = [dict(type='TwoStageWarmupPolyLR', by_epoch=False, warmup_ratio=(0, 0.05))]
