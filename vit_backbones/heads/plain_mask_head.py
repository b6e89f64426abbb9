"""The plain mask head, for MMDetection."""

from mmengine.registry import MODELS

from vit_backbones.heads.det_joint_head import DetJointHead
from vit_backbones.heads.plain_mask import ThroughOwnBlocks


@MODELS.register_module()
class PlainMaskHead(ThroughOwnBlocks, DetJointHead):
    """Head of `mmdet.Mask2Former` on the maps of any backbone, frozen ones too.

    Levels are summed, and queries and tokens go through plain ViT blocks of the head. Class logits,
    masks, losses and annealing are those of `EoMTHead`.

    Args:
        in_channels: Channels of each map of the backbone.
        stride: Pixels of a token's side.
        strides: Of each map, by default `stride` for all; others are resampled.
        num_things_classes: Classes of objects.
        num_stuff_classes: Classes of stuff.
        num_queries: 200 as published.
        num_blocks: Blocks of the head, 6 as published.
        **kwargs: As `JointHead`.
    """
