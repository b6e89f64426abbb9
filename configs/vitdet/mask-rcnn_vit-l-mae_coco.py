# Mask R-CNN of ViTDet on COCO, with MAE ViT-L.
#   source: Li et al., ECCV 2022; detectron2, projects/ViTDet, mask_rcnn_vitdet_l_100ep
#   result: not run; detectron2 reports box AP 55.5, mask AP 49.2
#   command: in README.md, for 16 GPUs
_base_ = [
    '../_base_/backbones/vit-l_mae.py',
    '../_base_/models/mask-rcnn_vitdet.py',
    '../_base_/schedules/vitdet_coco_100e.py',
]
model = dict(
    data_preprocessor=_base_.preprocess,
    backbone=dict(
        # All but the last block of each quarter
        window_block_indexes=[i for i in range(_base_.depth) if (i + 1) % (_base_.depth // 4)],
        **_base_.backbone,
    ),
    neck=dict(in_channels=_base_.embed_dims),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=_base_.decay_rate))
