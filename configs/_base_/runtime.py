# What every run shares: hooks, logging, seed. Model configs set `default_scope`.
# tools/train.py adds the hooks for curves, pictures, records and unreadable images by itself.
custom_imports = dict(imports=['vit_backbones'], allow_failed_imports=False)

default_hooks = dict(
    runtime_info=dict(type='RuntimeInfoHook'),
    timer=dict(type='IterTimerHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    logger=dict(type='LoggerHook', interval=20),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # Two are kept, so that one survives whatever happens while the other is written.
    checkpoint=dict(type='CheckpointHook', interval=1, save_best='auto', max_keep_ckpts=2),
)
env_cfg = dict(
    cudnn_benchmark=False,
    # Worker processes decode and augment; threads inside each of them would only compete.
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
log_processor = dict(type='LogProcessor', window_size=20, by_epoch=True)
randomness = dict(seed=0)
log_level = 'INFO'
load_from = None
resume = False
