# Mask R-CNN of ViTDet on COCO, with DINOv3 ViT-B; its rotary positions need no relative ones.
#   source: Li et al., ECCV 2022; the data, steps and rates of mask-rcnn_vit-b-mae_coco.py
#   result: not run
#   command: in README.md, for 16 GPUs
_base_ = [
    '../_base_/backbones/vit-b_dinov3.py',
    '../_base_/models/mask-rcnn_vitdet.py',
    '../_base_/schedules/vitdet_coco_100e.py',
]
model = dict(
    data_preprocessor=_base_.preprocess,
    backbone=dict(
        use_rel_pos=False,
        # All but the last block of each quarter
        window_block_indexes=[i for i in range(_base_.depth) if (i + 1) % (_base_.depth // 4)],
        **_base_.backbone,
    ),
    neck=dict(in_channels=_base_.embed_dims),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=_base_.decay_rate))
