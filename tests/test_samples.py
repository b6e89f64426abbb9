"""Data samples of mmdet and mmseg as arrays."""

import numpy as np
import torch
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from vit_backbones.samples import marks_of


def test_objects_of_a_lower_score_are_left_out():
    objects = InstanceData(
        labels=torch.tensor([3, 4]), bboxes=torch.ones(2, 4), scores=torch.tensor([0.2, 0.8])
    )
    truth, prediction = marks_of(BaseDataElement(pred_instances=objects), 0.5)
    assert prediction.labels.tolist() == [4]
    assert prediction.boxes.shape == (1, 4)
    assert all(field is None for field in truth)


def test_masks_of_annotations_are_arrays():
    masks = BitmapMasks(np.ones((1, 4, 6), np.uint8), 4, 6)
    objects = InstanceData(labels=torch.tensor([0]), masks=masks)
    truth, _ = marks_of(BaseDataElement(gt_instances=objects))
    assert truth.masks.shape == (1, 4, 6)
    assert truth.scores is None


def test_panoptic_maps_come_before_semantic_ones():
    panoptic = PixelData(sem_seg=torch.full((1, 2, 3), 2001))
    semantic = PixelData(data=torch.zeros(1, 2, 3))
    sample = BaseDataElement(pred_panoptic_seg=panoptic, pred_sem_seg=semantic)
    assert marks_of(sample)[1].label_map.tolist() == [[1] * 3] * 2
