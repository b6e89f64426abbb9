# Mask2Former, instance masks on COCO, with DINOv3 ViT-B frozen: pyramid and head learn.
#   source: as mask2former_vit-b-dinov2_coco-instance.py; result: not run
#   command: in README.md, for 8 GPUs
_base_ = 'mask2former_vit-b-dinov2_coco-instance.py'
# the figures of vit-b_dinov3.py; a frozen ViT has no drop path
model = dict(
    backbone=dict(
        model_name='vit_base_patch16_dinov3.lvd1689m', frozen_stages=12, drop_path_rate=0.0
    )
)
