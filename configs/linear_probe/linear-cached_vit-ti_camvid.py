# The linear probe on CamVid on kept features: four fixed augmentations of each image.
#   command: in README.md
_base_ = 'linear_vit-ti_camvid.py'
custom_hooks = [dict(type='FeatureCacheHook', views=4)]
train_cfg = dict(val_interval=10)
