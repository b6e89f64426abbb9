# COCO panoptic as EoMT's authors train on it; see eomt_objects.py.
_base_ = ['mmdet::_base_/datasets/coco_panoptic.py', 'eomt_objects.py']
epoch_iters = 118287 // 16
annotations = dict(type='LoadPanopticAnnotations', with_bbox=True, with_mask=True, with_seg=True)
train_pipeline = [dict(type='LoadImageFromFile'), annotations, *_base_.jitter]
test_pipeline = [dict(type='LoadImageFromFile'), *_base_.whole, annotations, _base_.packed]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline), **_base_.loader)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
