"""The dense auxiliary loss of Mask2Former."""

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData

import vit_backbones  # noqa: F401  (mmcv's operators)
from vit_backbones.training.auxiliary import AuxiliaryMask2Former


def test_cells_take_the_class_at_their_centre_and_small_objects_lie_on_top() -> None:
    masks = np.zeros((2, 16, 24), np.uint8)
    masks[0, 2:6, 2:6] = 1  # small, class 1, listed first
    masks[1, :8, :16] = 1  # large, class 0
    sample = DetDataSample()
    sample.gt_instances = InstanceData(
        labels=torch.tensor([1, 0]), masks=BitmapMasks(masks, 16, 24)
    )
    logits = torch.zeros(1, 3, 2, 3)  # cells of 8 x 8
    cells = AuxiliaryMask2Former._cell_classes((16, 24), logits, [sample])
    assert cells.tolist() == [[[1, 0, 2], [2, 2, 2]]]
