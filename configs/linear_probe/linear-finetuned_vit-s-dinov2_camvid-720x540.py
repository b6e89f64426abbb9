# A linear head on four layers of a fine-tuned DINOv2 ViT-S, at one and a half times CamVid's own
# size, where thin classes cover more of a patch. Blocks learn at rates that fall from the head
# down, and rare classes weigh more.
#   command: in README.md
_base_ = 'linear-finetuned_vit-s-dinov2_camvid.py'
scale = (720, 540)
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(scale=scale, ratio_range=(0.6, 1.6))
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=scale)
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
auto_scale_lr = dict(enable=False, base_batch_size=2)
model = dict(
    backbone=dict(out_indices='even4', norm='all'),
    decode_head=dict(
        in_channels=[384] * 4,
        in_index=[0, 1, 2, 3],
        input_transform='resize_concat',
        channels=1536,
        # the inverse root of each class's frequency in the training images
        loss_decode=dict(
            class_weight=[0.34, 0.29, 1.42, 0.25, 0.66, 0.45, 1.30, 1.33, 0.58, 1.76, 2.61]
        ),
    ),
)
optim_wrapper = dict(
    constructor='ViTLayerDecayConstructor',
    paramwise_cfg=dict(decay_rate=0.8, custom_keys=dict(backbone=dict(lr_mult=0.3))),
)
train_cfg = dict(val_interval=5)
