"""The plain mask head, for MMSegmentation."""

from mmengine.registry import MODELS

from vit_backbones.heads.plain_mask import ThroughOwnBlocks
from vit_backbones.heads.seg_joint_head import SegJointHead


@MODELS.register_module()
class SegPlainMaskHead(ThroughOwnBlocks, SegJointHead):
    """Decode head of `mmseg.EncoderDecoder` on the maps of any backbone, frozen ones too.

    Args:
        in_channels: Channels of each map of the backbone.
        stride: Pixels of a token's side.
        strides: Of each map, by default `stride` for all; others are resampled.
        num_classes: Without "no object".
        num_queries: 100 as published.
        num_blocks: Blocks of the head, 6 as published.
        **kwargs: As `SegJointHead`.
    """
