"""Mask2Former's head with its losses computed at once, for MMDetection."""

from collections.abc import Sequence

import numpy as np
import torch
from mmdet.models.dense_heads import Mask2FormerHead
from mmengine.registry import MODELS
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from vit_backbones.devices import upload
from vit_backbones.heads.batched_loss import BatchedLoss
from vit_backbones.heads.class_masks import class_masks


@MODELS.register_module()
class BatchedMask2FormerHead(BatchedLoss, Mask2FormerHead):
    """`mmdet.Mask2FormerHead` whose loss does not wait for every output and image.

    Arguments, parameters, predictions and losses are those of mmdet's head, so that checkpoints of
    either load into the other.
    """

    def preprocess_gt(
        self,
        batch_gt_instances: Sequence[InstanceData],
        batch_gt_semantic_segs: Sequence[PixelData | None],
    ) -> list[InstanceData]:
        """Labels (n,) and masks (n, H, W) of each image's things, and of its stuff if there is any.

        As mmdet's, with boolean masks, which are an eighth of its integers, and one copy a batch.
        """
        segs = [None if each is None else each.sem_seg for each in batch_gt_semantic_segs]
        missing = [each is None for each in segs]
        if self.is_unbatched() or any(missing) != all(missing):
            return super().preprocess_gt(batch_gt_instances, batch_gt_semantic_segs)
        arrays = [each.masks.to_ndarray() for each in batch_gt_instances]
        _check_sizes(arrays, [] if all(missing) else segs)
        things = _things(batch_gt_instances, arrays)
        if all(missing):
            return things
        stuff = range(self.num_things_classes, self.num_classes)
        return [
            InstanceData(
                labels=torch.cat([thing.labels, labels]), masks=torch.cat([thing.masks, masks])
            )
            for thing, (labels, masks) in zip(things, class_masks(segs, stuff), strict=True)
        ]


def _check_sizes(masks: Sequence[np.ndarray], maps: Sequence[Tensor]) -> None:
    sizes = dict.fromkeys(tuple(each.shape[1:]) for each in (*masks, *maps))
    if len(sizes) > 1:
        raise ValueError(
            f'The masks{" and label maps" * bool(maps)} of a batch must have one size, got '
            f'{", ".join(map(str, sizes))}; pad them with the images: '
            f'data_preprocessor=dict(pad_mask=True{", pad_seg=True" * bool(maps)}).'
        )


def _things(instances: Sequence[InstanceData], arrays: Sequence[np.ndarray]) -> list[InstanceData]:
    """Objects with their masks (n, H, W) on the device of the labels, copied at once."""
    masks: Tensor = upload(np.concatenate(arrays), instances[0].labels.device).bool()
    split = masks.split([len(array) for array in arrays])
    return [
        InstanceData(labels=each.labels, masks=own)
        for each, own in zip(instances, split, strict=True)
    ]
