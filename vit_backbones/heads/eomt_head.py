"""EoMT's head, for MMDetection."""

from mmengine.registry import MODELS

from vit_backbones.heads.det_joint_head import DetJointHead
from vit_backbones.heads.joint_features import ThroughBackbone


@MODELS.register_module()
class EoMTHead(ThroughBackbone, DetJointHead):
    """Head of `EoMT`, whose queries go through the last blocks of the model's backbone.

    `EoMT` gives it `feat_channels` and `patch_size`. Its class logits, masks and losses are those
    of EoMT (Kerssies et al., Your ViT is Secretly an Image Segmentation Model, CVPR 2025).

    Args:
        num_things_classes: Classes of objects.
        num_stuff_classes: Classes of stuff.
        num_queries: 200 as published.
        num_blocks: Blocks of the backbone with queries; as published 3 for ViT-S and B, 4 for L.
        **kwargs: As `JointHead`.
    """
