# AdamW for short trainings from random weights: 60 iterations of warm-up, a cosine to nothing;
# biases, norms, positions and prefix tokens have no weight decay.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    # One rate for all; in MMEngine's constructor custom_keys would end norm_decay_mult
    constructor='ViTLayerDecayConstructor',
    paramwise_cfg=dict(decay_rate=1.0),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=60),
    dict(type='CosineAnnealingLR', eta_min=0.0, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=4, val_interval=2)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
