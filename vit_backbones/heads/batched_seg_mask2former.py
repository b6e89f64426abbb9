"""Mask2Former's head with its losses computed at once, for MMSegmentation."""

from typing import Any

from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from mmseg.models.decode_heads.mask2former_head import Mask2FormerHead
from mmseg.utils import SampleList

from vit_backbones.heads.batched_loss import BatchedLoss
from vit_backbones.heads.class_masks import class_masks


@MODELS.register_module()
class BatchedSegMask2FormerHead(BatchedLoss, Mask2FormerHead):
    """`mmseg.Mask2FormerHead` whose loss does not wait for every output and image.

    Arguments, parameters, predictions and losses are those of mmseg's head, so that checkpoints of
    either load into the other.
    """

    def _seg_data_to_instance_data(
        self, batch_data_samples: SampleList
    ) -> tuple[list[InstanceData], list[dict[str, Any]]]:
        """Classes in each image with their masks, boolean, and the images' metas."""
        if self.is_unbatched():
            return super()._seg_data_to_instance_data(batch_data_samples)
        maps = [each.gt_sem_seg.data for each in batch_data_samples]
        found = class_masks(maps, range(self.num_classes), self.ignore_index)
        instances = [InstanceData(labels=labels, masks=masks) for labels, masks in found]
        return instances, [each.metainfo for each in batch_data_samples]
