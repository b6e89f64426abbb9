# The plain mask head on CamVid with DINOv2 ViT-S on kept features: four fixed views of each image.
#   command: in README.md
_base_ = 'plain-mask_vit-s-dinov2_camvid.py'
custom_hooks = [dict(type='FeatureCacheHook', views=4)]
train_cfg = dict(val_interval=10)
