# COCO for ViTDet: 100 epochs of batches of 64, images scaled by 0.1 to 2 and cropped to 1024x1024
# (25 epochs of COCO four times over), a tenth of the rate after epochs 88 and 96.
#   source: detectron2, projects/ViTDet, where biases and relative positions have weight decay too;
#     data: data/coco
_base_ = 'mmdet::common/lsj-100e_coco-instance.py'
custom_imports = dict(imports=['vit_backbones'])
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(1024, 1024), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
auto_scale_lr = dict(enable=False, base_batch_size=64)
train_dataloader = dict(batch_size=4)  # on each of 16 GPUs
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(
    constructor='ViTLayerDecayConstructor',
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, end=250),
    dict(type='MultiStepLR', milestones=[22, 24], gamma=0.1),
]
