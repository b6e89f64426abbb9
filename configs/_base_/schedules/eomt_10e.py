# EoMT for short trainings: as released for DINOv2, but at five times the rate, and with warm-ups
# that are parts of the training.
_base_ = 'adamw_cosine_10e.py'
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.05),
    constructor='EoMTOptimWrapperConstructor',
    paramwise_cfg=dict(decay_rate=0.8),
    clip_grad=dict(max_norm=0.01),
)
param_scheduler = [dict(type='TwoStageWarmupPolyLR', by_epoch=False, warmup_ratio=(0.02, 0.05))]
