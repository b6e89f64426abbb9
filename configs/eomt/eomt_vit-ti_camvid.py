# EoMT on CamVid with a fine-tuned ViT-Ti/16; crops and images seen as UPerNet's.
#   source: Kerssies et al., CVPR 2025; data: CamVid, 367 + 101 images
#   command: in README.md
_base_ = [
    '../_base_/backbones/vit-ti_augreg.py',
    '../_base_/models/eomt_semantic.py',
    '../_base_/datasets/camvid.py',
    '../_base_/schedules/eomt_10e.py',
    '../_base_/runtime.py',
]
custom_imports = dict(imports=['vit_backbones.mmseg'])
model = dict(
    data_preprocessor=dict(size=_base_.crop_size, **_base_.preprocess),
    backbone=dict(img_size=_base_.crop_size, **_base_.backbone),
    decode_head=dict(num_classes=11, num_blocks=3, num_queries=50),
)
# Random queries need many updates more than they need large batches
auto_scale_lr = dict(enable=False, base_batch_size=2)
train_dataloader = dict(batch_size=2)
default_hooks = dict(checkpoint=dict(save_best='mIoU'))
