"""Mask2Former with cell supervision, for MMDetection."""

import math

import numpy as np
import torch
from mmdet.models.detectors import Mask2Former
from mmdet.structures import SampleList
from mmengine.registry import MODELS
from torch import Tensor

from vit_backbones.devices import upload
from vit_backbones.heads.auxiliary import CellSupervision


@MODELS.register_module()
class AuxiliaryMask2Former(CellSupervision, Mask2Former):
    """Mask2Former whose backbone also learns to classify every cell of its last map.

    Cells without an object are a class of their own, the last one. Arguments: those of
    `CellSupervision` and of `mmdet.Mask2Former`.
    """

    labels_on_host = True

    @property
    def num_cell_classes(self) -> int:
        """Things, stuff, and no object."""
        return self.panoptic_head.num_things_classes + self.panoptic_head.num_stuff_classes + 1

    def _cells(self, batch_data_samples: SampleList, rows: Tensor, columns: Tensor) -> Tensor:
        instances = [sample.gt_instances for sample in batch_data_samples]
        places = [np.from_dlpack(each) for each in (rows, columns)]
        found = np.stack([_smallest(each.masks.to_ndarray(), *places) for each in instances])
        ends = np.cumsum([len(each.labels) for each in instances])
        firsts = np.array([0, *ends[:-1]])[:, None, None]
        labels = torch.cat([each.labels for each in instances])
        classes = torch.cat([labels, labels.new_full((1,), self.num_cell_classes - 1)])
        return classes[upload(np.where(found < 0, ends[-1], firsts + found), classes.device)]

    def _head_losses(
        self, maps: tuple[Tensor, ...], batch_data_samples: SampleList
    ) -> dict[str, Tensor]:
        return self.panoptic_head.loss(maps, batch_data_samples)


def _smallest(masks: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Which of masks (N, H, W) covers a pixel where rows and columns cross, (h, w), or -1.

    Of several it is the smallest: a small object on top of a large one is not lost.
    """
    background = np.full((1, len(rows), len(columns)), math.prod(masks.shape[1:]) + 1)
    sizes = np.array([np.count_nonzero(mask) for mask in masks]).reshape(-1, 1, 1)
    covering = np.where(masks[:, rows][:, :, columns], sizes, background + 1)
    return np.concatenate([background, covering]).argmin(0) - 1
