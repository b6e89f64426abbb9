# A linear probe on ADE20K: one 1x1 convolution on the last layer of a frozen DINOv2 ViT-B.
#   source: Oquab et al., TMLR 2024 (AdamW, lr 1e-3, weight decay 1e-4, batches of 16, 40k
#     iterations), here without the batch norm before the convolution, which mmseg's heads lack
#   data: data/ade/ADEChallengeData2016
#   result: not run
#   command: in README.md, for 8 GPUs
_base_ = [
    '../_base_/backbones/vit-b_dinov2.py',
    '../_base_/models/linear.py',
    'mmseg::_base_/datasets/ade20k.py',
    '../_base_/runtime.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size, **_base_.preprocess),
    backbone=dict(frozen_stages=_base_.depth, **_base_.backbone),
    decode_head=dict(in_channels=_base_.embed_dims, channels=_base_.embed_dims, num_classes=150),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
train_dataloader = dict(batch_size=2)  # on each of 8 GPUs
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, end=1500),
    dict(type='PolyLR', eta_min=0.0, power=1.0, begin=1500, by_epoch=False),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=40000, val_interval=4000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=4000, save_best='mIoU'),
)
