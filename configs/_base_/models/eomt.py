# EoMT (Kerssies et al., Your ViT is Secretly an Image Segmentation Model, CVPR 2025) for objects
# and stuff. A config adds the backbone, which must be a plain ViT, the head's numbers of classes
# and of blocks with queries (ViT-S and B: 3, L: 4), and `vit_backbones.mmdet` to `custom_imports`.
default_scope = 'mmdet'
model = dict(
    type='EoMT',
    data_preprocessor=dict(
        type='DetDataPreprocessor', bgr_to_rgb=True, pad_mask=True, pad_seg=True, seg_pad_value=255
    ),
    panoptic_head=dict(type='EoMTHead', num_stuff_classes=0, num_queries=200),
    train_cfg=dict(),
    test_cfg=dict(),
)
