# EoMT for the classes of pixels; see eomt.py. A config adds the backbone, the head's numbers of
# classes and of blocks with queries, and `vit_backbones.mmseg` to `custom_imports`.
default_scope = 'mmseg'
model = dict(
    type='SegEoMT',
    data_preprocessor=dict(type='SegDataPreProcessor', bgr_to_rgb=True, pad_val=0, seg_pad_val=255),
    decode_head=dict(type='SegEoMTHead', num_queries=100),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
