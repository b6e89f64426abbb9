# Mask2Former as published, for mmseg; see mask2former.py and mask2former_semantic_light.py.
_base_ = 'mask2former.py'
default_scope = 'mmseg'
model = dict(
    _delete_=True,
    type='WindowEncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', bgr_to_rgb=True, pad_val=0, seg_pad_val=255),
    neck=_base_.model.neck,
    decode_head=_base_.model.panoptic_head
    | dict(
        type='BatchedSegMask2FormerHead',
        _scope_='mmdet',
        num_queries=100,
        align_corners=False,
        train_cfg=_base_.model.train_cfg,
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
