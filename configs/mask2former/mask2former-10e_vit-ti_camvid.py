# Mask2Former on CamVid with the budget of the other small recipes: 10 epochs, crops of 352x480.
#   command: in README.md
_base_ = 'mask2former_vit-ti_camvid.py'
crop_size = (352, 480)
train_pipeline = [
    dict(each, crop_size=crop_size) if each['type'] == 'RandomCrop' else each
    for each in _base_.train_pipeline
]
model = dict(data_preprocessor=dict(size=crop_size))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
train_cfg = dict(max_epochs=10, val_interval=2)
