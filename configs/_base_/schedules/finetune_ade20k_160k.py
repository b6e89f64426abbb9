# ADE20K for fine-tuning: crops of 512x512 in batches of 16, 160k iterations, 1,500 of warm-up and a
# linear decay to nothing; tested on overlapping crops.
#   source: mmseg, configs/mae; data: data/ade/ADEChallengeData2016
_base_ = [
    'mmseg::_base_/datasets/ade20k.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_160k.py',
]
custom_imports = dict(imports=['vit_backbones'])
slide = dict(mode='slide', crop_size=(512, 512), stride=(341, 341))
auto_scale_lr = dict(enable=False, base_batch_size=16)
train_dataloader = dict(batch_size=2)  # on each of 8 GPUs
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    constructor='ViTLayerDecayConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, end=1500),
    dict(type='PolyLR', eta_min=0.0, power=1.0, begin=1500, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(save_best='mIoU', max_keep_ckpts=2))
