# The plain mask head on CamVid, on a frozen ViT-Ti/16; crops and images seen as UPerNet's.
#   source: github.com/tue-mps/pmt (MIT); data: CamVid, 367 + 101 images
#   command: in README.md
_base_ = [
    '../_base_/backbones/vit-ti_augreg.py',
    '../_base_/models/plain_mask_semantic.py',
    '../_base_/datasets/camvid.py',
    '../_base_/schedules/plain_mask_10e.py',
    '../_base_/runtime.py',
]
custom_imports = dict(imports=['vit_backbones.mmseg'])
model = dict(
    data_preprocessor=dict(size=_base_.crop_size, **_base_.preprocess),
    backbone=dict(_base_.backbone, out_indices='even4', norm='all', frozen_stages=_base_.depth),
    decode_head=dict(in_channels=[_base_.embed_dims] * 4, num_classes=11, num_queries=50),
)
# Random queries need many updates more than they need large batches
auto_scale_lr = dict(enable=False, base_batch_size=2)
train_dataloader = dict(batch_size=2)
default_hooks = dict(checkpoint=dict(save_best='mIoU'))
