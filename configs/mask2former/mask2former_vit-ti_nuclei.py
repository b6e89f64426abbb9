# Mask2Former on a fine-tuned ViT-Ti/16; an image holds up to 375 nuclei, hence 200 queries, and as
# nuclei differ only in their place, each query has one.
#   source: Cheng et al., CVPR 2022; Gao et al., ICCV 2021 (the places)
#   data: Data Science Bowl 2018 nuclei, 500 + 84 images
#   result: far behind Mask R-CNN, and not for objects found twice: docs/results.md
#   command: in README.md
_base_ = [
    '../_base_/backbones/vit-ti_augreg.py',
    '../_base_/models/mask2former_light.py',
    '../_base_/datasets/nuclei.py',
    '../_base_/schedules/adamw_cosine_10e.py',
    '../_base_/runtime.py',
]
custom_imports = dict(imports=['vit_backbones.mmdet'])
num_classes = 1
num_queries = 200
model = dict(
    data_preprocessor=_base_.preprocess,
    backbone=dict(out_indices='even4', norm='all', **_base_.backbone),
    neck=dict(in_channels=[_base_.embed_dims] * 4, in_strides=16),
    panoptic_head=dict(
        type='LocatedMask2FormerHead',
        num_things_classes=num_classes,
        num_queries=num_queries,
        positional_encoding=dict(scale=50.0),  # eight periods an image instead of one
        loss_cls=dict(class_weight=[1.0] * num_classes + [0.1]),
    ),
    panoptic_fusion_head=dict(num_things_classes=num_classes),
    test_cfg=dict(max_per_image=num_queries),
)
# A random head needs many updates more than it needs large batches
auto_scale_lr = dict(enable=False, base_batch_size=2)
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
train_cfg = dict(max_epochs=8, val_interval=4)
