# Mask2Former, light, for mmseg: the head of mask2former_light.py, whose parts are mmdet's, under
# mmseg's model. A config adds the backbone, the neck's `in_channels`, the number of classes, and
# `vit_backbones.mmseg` to `custom_imports`.
_base_ = 'mask2former_light.py'
default_scope = 'mmseg'
model = dict(
    _delete_=True,
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', bgr_to_rgb=True, pad_val=0, seg_pad_val=255),
    neck=_base_.model.neck,
    decode_head=_base_.model.panoptic_head
    | dict(
        type='BatchedSegMask2FormerHead',
        _scope_='mmdet',
        align_corners=False,
        train_cfg=_base_.model.train_cfg,
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
