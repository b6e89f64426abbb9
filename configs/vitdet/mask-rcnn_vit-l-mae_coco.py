# Mask R-CNN of ViTDet on COCO, with MAE ViT-L.
#   source: Li et al., ECCV 2022; detectron2, projects/ViTDet, mask_rcnn_vitdet_l_100ep
#   result: not run; detectron2 reports box AP 55.5, mask AP 49.2
#   command: in README.md, for 16 GPUs
_base_ = 'mask-rcnn_vit-b-mae_coco.py'
# the figures of vit-l_mae.py
embed_dims = 1024
depth = 24
decay_rate = 0.8
backbone = dict(model_name='vit_large_patch16_224.mae', drop_path_rate=0.4)
model = dict(
    backbone=dict(window_block_indexes=[i for i in range(depth) if (i + 1) % 6], **backbone),
    neck=dict(in_channels=embed_dims),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=decay_rate))
