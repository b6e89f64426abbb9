# Mask2Former from random weights on the drawn shapes: `make train`.
#   source: Cheng et al., CVPR 2022; data: drawn on first use, 1,600 + 200 images
_base_ = [
    '_base_/models/vit-ti_random.py',
    '_base_/models/mask2former_light.py',
    '_base_/datasets/shapes_instance.py',
    '_base_/schedules/adamw_cosine_4e.py',
    '_base_/runtime.py',
]
custom_imports = dict(imports=['vit_backbones.mmdet'])
num_classes = 8
# Until auxiliary_iters the head has no gradients; matters only in several processes
find_unused_parameters = True
model = dict(
    # From random weights: cells as well as queries learn the classes
    type='AuxiliaryMask2Former',
    auxiliary_weight=5.0,
    auxiliary_iters=300,
    data_preprocessor=_base_.preprocess,
    backbone=_base_.backbone,
    neck=dict(in_channels=_base_.embed_dims, in_strides=_base_.stride),
    panoptic_head=dict(
        num_things_classes=num_classes, loss_cls=dict(class_weight=[1.0] * num_classes + [0.1])
    ),
    panoptic_fusion_head=dict(num_things_classes=num_classes),
)
