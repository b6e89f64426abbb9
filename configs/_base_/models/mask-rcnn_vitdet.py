# Mask R-CNN of ViTDet; see vitdet.py.
_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py', 'vitdet.py']
model = dict(roi_head=dict(bbox_head=_base_.box_head, mask_head=_base_.mask_head), **_base_.parts)
