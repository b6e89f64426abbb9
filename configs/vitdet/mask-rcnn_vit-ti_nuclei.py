# Mask R-CNN of ViTDet with a fine-tuned ViT-Ti/16, light: 128 channels, 128 regions an image.
#   source: Li et al., ECCV 2022; data: Data Science Bowl 2018 nuclei, 500 + 84 images
#   command: in README.md
_base_ = [
    '../_base_/backbones/vit-ti_augreg.py',
    '../_base_/models/mask-rcnn_vitdet.py',
    '../_base_/datasets/nuclei.py',
    '../_base_/schedules/adamw_cosine_10e.py',
    '../_base_/runtime.py',
]
default_scope = 'mmdet'
channels = 128
regions = dict(out_channels=channels)
model = dict(
    data_preprocessor=dict(pad_size_divisor=32, **_base_.preprocess),
    backbone=dict(
        img_size=_base_.crop_size,
        window_size=8,  # a quarter of a crop
        window_block_indexes=[i for i in range(_base_.depth) if (i + 1) % (_base_.depth // 4)],
        **_base_.backbone,
    ),
    neck=dict(in_channels=_base_.embed_dims, out_channels=channels),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(scales=[4]),  # 16 pixels and up: nuclei are small
    ),
    roi_head=dict(
        bbox_roi_extractor=regions,
        mask_roi_extractor=regions,
        bbox_head=dict(
            in_channels=channels, conv_out_channels=channels, fc_out_channels=512, num_classes=1
        ),
        mask_head=dict(in_channels=channels, conv_out_channels=channels, num_classes=1),
    ),
    train_cfg=dict(rpn_proposal=dict(max_per_img=500), rcnn=dict(sampler=dict(num=128))),
    test_cfg=dict(rpn=dict(max_per_img=500), rcnn=dict(max_per_img=200)),
)
# A random head needs many updates more than it needs large batches
auto_scale_lr = dict(enable=False, base_batch_size=2)
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    constructor='ViTLayerDecayConstructor',
    optimizer=dict(lr=5e-4),
    paramwise_cfg=dict(decay_rate=_base_.decay_rate, custom_keys=dict(backbone=dict(lr_mult=1.0))),
)
train_cfg = dict(max_epochs=6)
