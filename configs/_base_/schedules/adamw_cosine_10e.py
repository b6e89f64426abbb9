# AdamW for fine-tuning: one epoch of warm-up, then a cosine to nothing at the end of the training;
# loaded backbones learn at a tenth of the rate.
_base_ = 'adamw_cosine_4e.py'
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0.0, begin=1, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=10)
