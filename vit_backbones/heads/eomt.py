"""EoMT as a detector of MMDetection: objects and stuff by a plain ViT."""

from collections.abc import Mapping
from typing import Any

from mmdet.models.detectors import Mask2Former
from mmdet.models.detectors.single_stage import SingleStageDetector
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from torch import Tensor

from vit_backbones.heads.eomt_weights import PublishedWeights
from vit_backbones.heads.joint_features import JointFeatures, fitted, refuse

_COUNTS = ('num_things_classes', 'num_stuff_classes')
# As published
_TEST_CFG = dict(object_mask_thr=0.8, iou_thr=0.8, filter_low_score=True, max_per_image=100)


@MODELS.register_module()
class EoMT(PublishedWeights, Mask2Former):
    """A plain ViT whose last blocks also run queries, and their head: there is no decoder.

    Source: Kerssies et al., Your ViT is Secretly an Image Segmentation Model, CVPR 2025.

    Args:
        backbone: A `ViTFeatBackbone`.
        panoptic_head: An `EoMTHead`; its channels and patch size are the backbone's.
        panoptic_fusion_head: By default mmdet's `MaskFormerFusionHead` for the head's classes.
        neck: None: there are no maps.
        train_cfg: As `train_cfg` of `JointHead`.
        test_cfg: Changes of the published `object_mask_thr=0.8`, `iou_thr=0.8`,
            `filter_low_score=True` and `max_per_image=100`. `instance_on` is whether there are
            classes of things, `panoptic_on` whether there are some of stuff.
        data_preprocessor: As in mmdet.
        init_cfg: As in MMEngine.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        panoptic_head: Mapping[str, Any],
        panoptic_fusion_head: Mapping[str, Any] | None = None,
        neck: None = None,
        train_cfg: Mapping[str, Any] | None = None,
        test_cfg: Mapping[str, Any] | None = None,
        data_preprocessor: Mapping[str, Any] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super(SingleStageDetector, self).__init__(data_preprocessor, init_cfg)  # as `MaskFormer`
        refuse('EoMT', neck=neck)
        self.backbone = MODELS.build(backbone)
        head = fitted(panoptic_head, self.backbone, 'EoMT')
        self.panoptic_head = MODELS.build({'train_cfg': train_cfg, **head})
        counts = {name: getattr(self.panoptic_head, name) for name in _COUNTS}
        things, stuff = counts.values()
        on = dict(instance_on=things > 0, panoptic_on=stuff > 0)
        self.train_cfg, self.test_cfg = train_cfg, ConfigDict(_TEST_CFG | on | (test_cfg or {}))
        fusion = dict(type='mmdet.MaskFormerFusionHead') | counts | (panoptic_fusion_head or {})
        self.panoptic_fusion_head = MODELS.build(fusion | dict(test_cfg=self.test_cfg))
        self.num_things_classes, self.num_stuff_classes = things, stuff
        self.num_classes = self.panoptic_head.num_classes

    def extract_feat(self, batch_inputs: Tensor) -> JointFeatures:
        """The backbone and its images (B, C, H, W), for the head's queries."""
        return JointFeatures(self.backbone, batch_inputs)
