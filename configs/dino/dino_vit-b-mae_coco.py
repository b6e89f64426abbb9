# DINO on COCO, boxes, with MAE ViT-B in windows.
#   source: Zhang et al., ICLR 2023; detrex, projects/dino, dino_vitdet_base_4scale_12ep
#   result: not run; detrex reports box AP 50.2
#   command: in README.md, for 8 GPUs
_base_ = ['../_base_/backbones/vit-b_mae.py', '../_base_/models/dino_vitdet.py']
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
