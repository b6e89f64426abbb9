# What detectors of ViTDet share (Li et al., Exploring Plain Vision Transformer Backbones for Object
# Detection, ECCV 2022): square images, windows and relative positions, a pyramid of the last map,
# two convolutions in the RPN, LayerNorm in the heads, four convolutions in the box heads.
# A config adds the backbone, its `window_block_indexes` and the neck's `in_channels`.
#   source: detectron2, projects/ViTDet
norm_cfg = dict(type='LN2d', eps=1e-6)
box_head = dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=norm_cfg)
mask_head = dict(norm_cfg=norm_cfg)
parts = dict(
    data_preprocessor=dict(pad_size_divisor=1024),
    backbone=dict(
        _delete_=True,
        img_size=(1024, 1024),
        with_cls_token=False,
        norm='none',
        window_size=14,
        use_rel_pos=True,
    ),
    neck=dict(_delete_=True, type='SimpleFeaturePyramid', num_outs=5),
    rpn_head=dict(num_convs=2),
)
