# Faster R-CNN on nuclei: mask-rcnn_vit-ti_nuclei.py for boxes alone, such as those of YOLO and VOC.
#   result: not run
#   command: in README.md
_base_ = 'mask-rcnn_vit-ti_nuclei.py'
model = dict(type='FasterRCNN', roi_head=dict(mask_roi_extractor=None, mask_head=None))
boxes = dict(LoadAnnotations=dict(with_mask=False), FilterAnnotations=dict(by_mask=False))
train_pipeline = [step | boxes.get(step['type'], {}) for step in _base_.train_pipeline]
test_pipeline = [step | boxes.get(step['type'], {}) for step in _base_.test_pipeline]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(metric=['bbox'])
test_evaluator = val_evaluator
