# Mask R-CNN of ViTDet on COCO, with MAE ViT-L in shards.
#   result: not run
#   command: in README.md, for 16 GPUs
_base_ = ['mask-rcnn_vit-l-mae_coco.py', '../_base_/fsdp.py']
