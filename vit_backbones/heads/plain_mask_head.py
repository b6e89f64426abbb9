"""The plain mask head, for MMDetection."""

from mmengine.registry import MODELS

from vit_backbones.heads.det_joint_head import DetJointHead
from vit_backbones.heads.plain_mask import PlainMask


@MODELS.register_module()
class PlainMaskHead(PlainMask, DetJointHead):
    """Head of mmdet's `Mask2Former` for maps of any backbone, best a frozen one.

    Args:
        num_things_classes: Classes of objects.
        num_stuff_classes: Classes of stuff.
        num_queries: 200 as published.
        **kwargs: As `PlainMask`.
    """
