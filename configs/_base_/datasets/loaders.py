# How every dataset here is loaded. A dataset config adds `dataset` to each loader.
# tools/train.py adds num_workers for the machine: worker processes load the next batches while the
# model trains on this one. MMEngine alone has none.
auto_scale_lr = dict(enable=False, base_batch_size=8)
train_dataloader = dict(
    batch_size=8,
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=8,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(test_mode=True),
)
test_dataloader = val_dataloader
