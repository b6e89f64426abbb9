# dino_vit-b-dinov3_coco.py with its ViT frozen, and without windows, to which it cannot adapt:
# pyramid and head learn.
#   result: not run
#   command: in README.md, for 8 GPUs
_base_ = 'dino_vit-b-dinov3_coco.py'
model = dict(
    backbone=dict(frozen_stages=12, drop_path_rate=0.0, window_size=None, window_block_indexes=())
)
