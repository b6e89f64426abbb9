# The plain mask head on nuclei, on a frozen ViT-Ti/16; an image holds up to 375, hence 200 queries.
#   source: github.com/tue-mps/pmt (MIT); data: Data Science Bowl 2018 nuclei, 500 + 84 images
#   command: in README.md
_base_ = [
    '../_base_/backbones/vit-ti_augreg.py',
    '../_base_/models/plain_mask.py',
    '../_base_/datasets/nuclei.py',
    '../_base_/schedules/plain_mask_10e.py',
    '../_base_/runtime.py',
]
custom_imports = dict(imports=['vit_backbones.mmdet'])
model = dict(
    data_preprocessor=_base_.preprocess,
    backbone=dict(_base_.backbone, out_indices='even4', norm='all', frozen_stages=_base_.depth),
    panoptic_head=dict(in_channels=[_base_.embed_dims] * 4, num_things_classes=1),
    panoptic_fusion_head=dict(num_things_classes=1),
    train_cfg=dict(num_points=64 * 64),  # as many as a mask of a crop has cells
    test_cfg=dict(max_per_image=200),
)
# Random queries need many updates more than they need large batches
auto_scale_lr = dict(enable=False, base_batch_size=2)
train_dataloader = dict(batch_size=2)
train_cfg = dict(max_epochs=6, val_interval=3)
