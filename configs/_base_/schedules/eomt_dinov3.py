# EoMT as released for DINOv3: twice the rate and longer warm-ups; the blocks that the queries share
# learn at the full rate.
_base_ = 'eomt_dinov2.py'
optim_wrapper = dict(optimizer=dict(lr=2e-4), paramwise_cfg=dict(joint_decay=False))
param_scheduler = [dict(type='TwoStageWarmupPolyLR', by_epoch=False, warmup=(2000, 3000))]
