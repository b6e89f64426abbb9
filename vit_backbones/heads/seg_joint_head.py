"""The base of heads with queries in a ViT's blocks, for MMSegmentation."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from vit_backbones.arguments import integer
from vit_backbones.heads.batched_seg_mask2former import BatchedSegMask2FormerHead
from vit_backbones.heads.joint_head import JointHead
from vit_backbones.heads.query_prediction import semantic_scores


class SegJointHead(JointHead, BatchedSegMask2FormerHead):
    """A `JointHead` for the classes of pixels.

    Pixels of `ignore_index` are in no mask, and count as outside of each.

    Args:
        num_classes: Without "no object"; at least 2, as a label is the class of most score.
        ignore_index: Label of pixels without a class.
        align_corners: Of the model's resizing of scores to the image.
        **kwargs: As `JointHead`.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        ignore_index: int = 255,
        align_corners: bool = False,
        **kwargs: Any,
    ) -> None:
        reason = ': a single class needs another for the background'
        super().__init__(
            num_classes=integer('num_classes', num_classes, 2, reason=reason), **kwargs
        )
        self.out_channels, self.ignore_index = num_classes, ignore_index
        self.align_corners = align_corners

    def predict(
        self, x: Any, batch_img_metas: Sequence[Mapping[str, Any]], test_cfg: Any = None
    ) -> Tensor:
        """Scores (B, K, H, W) in the size of the batch, at least 0."""
        return semantic_scores(*self._last(x, batch_img_metas))
