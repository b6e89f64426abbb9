# DINO on COCO, boxes, with DINOv3 ViT-B in windows; its rotary positions need no relative ones.
#   source: as dino_vit-b-mae_coco.py
#   result: not run
#   command: in README.md, for 8 GPUs
_base_ = ['../_base_/backbones/vit-b_dinov3.py', '../_base_/models/dino_vitdet.py']
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
