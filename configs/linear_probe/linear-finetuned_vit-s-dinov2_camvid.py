# The linear probe with its DINOv2 ViT-S trained along, at a tenth of the rate.
_base_ = 'linear_vit-s-dinov2_camvid.py'
model = dict(backbone=dict(frozen_stages=-1))
