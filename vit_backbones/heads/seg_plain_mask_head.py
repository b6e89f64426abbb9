"""The plain mask head, for MMSegmentation."""

from mmengine.registry import MODELS

from vit_backbones.heads.plain_mask import PlainMask
from vit_backbones.heads.seg_joint_head import SegJointHead


@MODELS.register_module()
class SegPlainMaskHead(PlainMask, SegJointHead):
    """Head of mmseg's `EncoderDecoder` for maps of any backbone, best a frozen one.

    Args:
        num_classes: Without "no object".
        num_queries: 100 as published.
        **kwargs: As `PlainMask`, and `SegJointHead`'s.
    """
