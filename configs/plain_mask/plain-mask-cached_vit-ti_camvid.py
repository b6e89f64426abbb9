# The plain mask head on CamVid with ViT-Ti on kept features: four fixed views of each image.
#   command: in README.md
_base_ = 'plain-mask_vit-ti_camvid.py'
custom_hooks = [dict(type='FeatureCacheHook', views=4)]
train_cfg = dict(val_interval=10)
