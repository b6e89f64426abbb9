# mask2former_vit-adapter-l-dinov2_coco-panoptic.py with its ViT frozen: adapter and head learn.
#   result: not run
#   command: in README.md, for 8 GPUs
_base_ = 'mask2former_vit-adapter-l-dinov2_coco-panoptic.py'
model = dict(backbone=dict(backbone=dict(frozen_stages=24)))
