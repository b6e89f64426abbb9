# COCO instances as EoMT's authors train on them; see eomt_objects.py.
_base_ = ['mmdet::_base_/datasets/coco_instance.py', 'eomt_objects.py']
epoch_iters = 117266 // 16  # images with objects
annotations = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(annotations, poly2mask=False),
    *_base_.jitter,
]
test_pipeline = [dict(type='LoadImageFromFile'), *_base_.whole, annotations, _base_.packed]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline), **_base_.loader)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(metric=['segm'])
test_evaluator = val_evaluator
