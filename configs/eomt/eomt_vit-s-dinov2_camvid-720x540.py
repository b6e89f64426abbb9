# EoMT on CamVid with DINOv2 ViT-S, at one and a half times CamVid's own size, where thin
# classes cover more of a patch. Crops stay as large as before, so a training step costs the same.
#   command: in README.md
_base_ = 'eomt_vit-s-dinov2_camvid.py'
scale = (720, 540)
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(scale=scale, ratio_range=(0.6, 1.6))
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=scale)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
