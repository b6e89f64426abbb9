# EoMT as released for DINOv2: batches of 16, two warm-ups, a polynomial decay to nothing; weight
# decay reaches all parameters. A recipe adds train_cfg.max_iters, best by the iterations of an
# epoch, `epoch_iters` of its data. In the release, and by --amp here, in half precision.
#   source: github.com/tue-mps/eomt (MIT), training/lightning_module.py and main.py
_base_ = '../runtime.py'
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
    constructor='EoMTOptimWrapperConstructor',
    paramwise_cfg=dict(decay_rate=0.8),
    clip_grad=dict(max_norm=0.01),
)
param_scheduler = [dict(type='TwoStageWarmupPolyLR', by_epoch=False, warmup=(500, 1000))]
train_cfg = dict(type='IterBasedTrainLoop')
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=5000),
)
