# The plain mask head for short trainings: as PMT was released (plain_mask.py), but at 2.5 times
# the rate, and with a warm-up of half an epoch.
_base_ = 'adamw_cosine_10e.py'
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.05),
    clip_grad=dict(max_norm=0.01),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, begin=0, end=0.5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0.0, begin=0.5, convert_to_iter_based=True),
]
