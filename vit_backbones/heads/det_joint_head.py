"""The base of heads with queries in a ViT's blocks, for MMDetection."""

from typing import Any

from mmdet.structures import SampleList
from torch import Tensor

from vit_backbones.arguments import integer
from vit_backbones.heads.batched_mask2former import BatchedMask2FormerHead
from vit_backbones.heads.joint_head import JointHead


class DetJointHead(JointHead, BatchedMask2FormerHead):
    """A `JointHead` for objects, and for stuff if there is any.

    Args:
        num_things_classes: Classes of objects.
        num_stuff_classes: Classes of stuff, behind those.
        **kwargs: As `JointHead`, without `num_classes`.
    """

    def __init__(
        self, *, num_things_classes: int, num_stuff_classes: int = 0, **kwargs: Any
    ) -> None:
        things = integer('num_things_classes', num_things_classes, 0)
        stuff = integer('num_stuff_classes', num_stuff_classes, 0)
        super().__init__(num_classes=things + stuff, **kwargs)
        self.num_things_classes, self.num_stuff_classes = things, stuff

    def predict(self, x: Any, batch_data_samples: SampleList) -> tuple[Tensor, Tensor]:
        """Logits of classes (B, Q, K + 1), and of masks (B, Q, H, W) in the size of the batch."""
        return self._last(x, [each.metainfo for each in batch_data_samples])
