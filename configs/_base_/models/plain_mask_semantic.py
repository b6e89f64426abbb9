# The plain mask head for the classes of pixels; see plain_mask.py. A config adds the backbone, the
# head's `in_channels` and number of classes, and `vit_backbones.mmseg` to `custom_imports`.
default_scope = 'mmseg'
model = dict(
    type='WindowEncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', bgr_to_rgb=True, pad_val=0, seg_pad_val=255),
    decode_head=dict(type='SegPlainMaskHead', num_queries=100),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
