"""Mask2Former with cell supervision, for MMDetection."""

import torch
from mmdet.models.detectors import Mask2Former
from mmdet.structures import DetDataSample, SampleList
from mmengine.registry import MODELS
from torch import Tensor

from vit_backbones.heads.auxiliary import CellSupervision


@MODELS.register_module()
class AuxiliaryMask2Former(CellSupervision, Mask2Former):
    """Mask2Former whose backbone also learns to classify every cell of its last map.

    Cells without an object are a class of their own, the last one. Arguments: those of
    `CellSupervision` and of `mmdet.Mask2Former`.
    """

    @property
    def num_cell_classes(self) -> int:
        """Things, stuff, and no object."""
        return self.panoptic_head.num_things_classes + self.panoptic_head.num_stuff_classes + 1

    def _cell_classes(self, sample: DetDataSample, rows: Tensor, columns: Tensor) -> Tensor:
        classes = torch.full((len(rows), len(columns)), self.num_cell_classes - 1)
        instances = sample.gt_instances
        masks = instances.masks.to_tensor(torch.bool, 'cpu')  # (N, H, W)
        # large objects first, so that small ones on top of them are not lost
        for index in masks.flatten(1).sum(1).argsort(descending=True).tolist():
            classes[masks[index][rows][:, columns]] = instances.labels[index].cpu()
        return classes

    def _head_losses(
        self, maps: tuple[Tensor, ...], batch_data_samples: SampleList
    ) -> dict[str, Tensor]:
        return self.panoptic_head.loss(maps, batch_data_samples)
