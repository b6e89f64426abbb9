# The plain mask head as PMT was released: batches of 16, a warm-up of 6,000 steps, a cosine to
# nothing; weight decay reaches all parameters. A recipe adds train_cfg.max_iters.
#   source: github.com/tue-mps/pmt (MIT), image/training/lightning_module.py and image/main.py
_base_ = 'eomt_dinov2.py'
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=0.05),
    clip_grad=dict(max_norm=0.01),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, end=6000),
    dict(type='CosineAnnealingLR', eta_min=1e-9, begin=6000, by_epoch=False),
]
