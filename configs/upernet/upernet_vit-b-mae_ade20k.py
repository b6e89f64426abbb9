# UPerNet on ADE20K with MAE ViT-B, fine-tuned.
#   source: He et al., CVPR 2022; schedule of mmseg's MAE (batches of 16, 160k iterations), whose
#     layer decay is 0.65 and whose neck, Feature2Pyramid, is replaced by SimpleFeaturePyramid
#   result: not run; mmseg reports mIoU 48.13
#   command: in README.md, for 8 GPUs
_base_ = [
    '../_base_/backbones/vit-b_mae.py',
    'mmseg::_base_/models/upernet_r50.py',
    '../_base_/schedules/finetune_ade20k_160k.py',
]
model = dict(
    pretrained=None,
    data_preprocessor=dict(size=_base_.crop_size, **_base_.preprocess),
    backbone=dict(_delete_=True, out_indices='even4', norm='all', **_base_.backbone),
    neck=dict(type='SimpleFeaturePyramid', in_channels=[_base_.embed_dims] * 4),
    decode_head=dict(in_channels=[256] * 4, num_classes=150),
    auxiliary_head=dict(in_channels=256, num_classes=150),
    test_cfg=_base_.slide,
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=_base_.decay_rate))
