"""EoMT's head, for MMSegmentation."""

from mmengine.registry import MODELS

from vit_backbones.heads.joint_features import ThroughBackbone
from vit_backbones.heads.seg_joint_head import SegJointHead


@MODELS.register_module()
class SegEoMTHead(ThroughBackbone, SegJointHead):
    """Head of `SegEoMT`, whose queries go through the last blocks of the model's backbone.

    Args:
        num_classes: Without "no object".
        num_queries: 100 as published.
        num_blocks: Blocks of the backbone with queries; as published 3 for ViT-S and B, 4 for L.
        **kwargs: As `SegJointHead`.
    """
