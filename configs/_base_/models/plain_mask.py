# The plain mask head on a frozen ViT, as in PMT (2026, github.com/tue-mps/pmt): features of four
# layers, summed, and queries go through blocks of the head's own. A config adds the backbone, the
# head's `in_channels`, numbers of classes, and `vit_backbones.mmdet` to `custom_imports`.
default_scope = 'mmdet'
model = dict(
    type='Mask2Former',
    data_preprocessor=dict(
        type='DetDataPreprocessor', bgr_to_rgb=True, pad_mask=True, pad_seg=True, seg_pad_value=255
    ),
    panoptic_head=dict(type='PlainMaskHead', num_stuff_classes=0, num_queries=200),
    panoptic_fusion_head=dict(
        type='MaskFormerFusionHead', num_stuff_classes=0, loss_panoptic=None, init_cfg=None
    ),
    train_cfg=dict(),
    test_cfg=dict(
        panoptic_on=False,
        semantic_on=False,
        instance_on=True,
        max_per_image=100,
        object_mask_thr=0.8,
        iou_thr=0.8,
        filter_low_score=True,
    ),
)
