"""Mask2Former with a dense auxiliary loss, for training from random weights on little data."""

from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.detectors import Mask2Former
from mmdet.structures import SampleList
from mmengine.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class AuxiliaryMask2Former(Mask2Former):
    """Mask2Former whose backbone also learns to classify every cell of its last map.

    A query gets one class signal an object; a cell map gets one a cell, so the features learn what
    things look like many times sooner. The classifier is one 1x1 convolution, used in training
    alone. Auxiliary dense losses of this kind are common in segmentation (Zhao et al., Pyramid
    Scene Parsing Network, CVPR 2017).

    Args:
        auxiliary_weight: Weight of the loss `loss_dense`.
        auxiliary_iters: In the first so many iterations this loss stands alone and the head is not
            run, which makes them several times cheaper. The head then has no gradients: train in
            one process, or with `find_unused_parameters=True`.
        **kwargs: As `mmdet.Mask2Former`; the backbone must tell its `out_channels`.
    """

    def __init__(
        self, *, auxiliary_weight: float = 1.0, auxiliary_iters: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.auxiliary_weight, self.auxiliary_iters = auxiliary_weight, auxiliary_iters
        self.register_buffer('iterations', torch.tensor(0))  # saved, so that a resume goes on
        num_classes = self.panoptic_head.num_things_classes + self.panoptic_head.num_stuff_classes
        self.auxiliary_classifier = nn.Conv2d(self.backbone.out_channels[-1], num_classes + 1, 1)

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses of the head and of the cells.

        Args:
            batch_inputs: (B, C, H, W).
            batch_data_samples: With `gt_instances.masks` of the same H and W.

        Returns:
            Named losses.
        """
        features = self.backbone(batch_inputs)
        logits = self.auxiliary_classifier(features[-1])
        targets = self._cell_classes(batch_inputs.shape[-2:], logits, batch_data_samples)
        losses = {'loss_dense': self.auxiliary_weight * F.cross_entropy(logits, targets)}
        self.iterations += 1
        if self.iterations <= self.auxiliary_iters:
            return losses
        maps = self.neck(features) if self.with_neck else features
        return {**self.panoptic_head.loss(maps, batch_data_samples), **losses}

    @staticmethod
    def _cell_classes(
        size: tuple[int, int], logits: Tensor, batch_data_samples: SampleList
    ) -> Tensor:
        """Class at the centre of each cell (B, h, w); the last class where there is no object."""
        background = logits.shape[1] - 1
        targets = logits.new_full((len(logits), *logits.shape[-2:]), background, dtype=torch.long)
        rows = _centres(size[0], logits.shape[-2])
        columns = _centres(size[1], logits.shape[-1])
        for target, sample in zip(targets, batch_data_samples, strict=True):
            instances = sample.gt_instances
            masks = instances.masks.to_tensor(torch.bool, logits.device)  # (N, H, W)
            # large objects first, so that small ones on top of them are not lost
            for index in masks.flatten(1).sum(1).argsort(descending=True).tolist():
                target[masks[index][rows][:, columns]] = instances.labels[index]
        return targets


def _centres(pixels: int, cells: int) -> Tensor:
    """Pixel at the centre of each of `cells` equal parts."""
    return ((torch.arange(cells) + 0.5) * pixels / cells).long().clamp(max=pixels - 1)
