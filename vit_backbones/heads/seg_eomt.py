"""EoMT as a segmentor of MMSegmentation: the classes of pixels by a plain ViT."""

from collections.abc import Mapping
from typing import Any

from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from mmseg.models.segmentors import EncoderDecoder
from torch import Tensor

from vit_backbones.heads.eomt_weights import PublishedWeights
from vit_backbones.heads.joint_features import JointFeatures, fitted, refuse
from vit_backbones.heads.window_inference import WindowInference


@MODELS.register_module()
class SegEoMT(PublishedWeights, WindowInference, EncoderDecoder):
    """A plain ViT whose last blocks also run queries, and their head: there is no decoder.

    Source: Kerssies et al., Your ViT is Secretly an Image Segmentation Model, CVPR 2025.

    Args:
        backbone: A `ViTFeatBackbone`.
        decode_head: A `SegEoMTHead`; its channels and patch size are the backbone's.
        neck: None: there are no maps.
        auxiliary_head: None, likewise.
        train_cfg: As `train_cfg` of `JointHead`.
        test_cfg: `dict(mode='windows', crop_size=(512, 512))` as published, see `WindowInference`;
            or mmseg's `whole` (default) and `slide`.
        **kwargs: As `mmseg.EncoderDecoder`.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        decode_head: Mapping[str, Any],
        neck: None = None,
        auxiliary_head: None = None,
        train_cfg: Mapping[str, Any] | None = None,
        test_cfg: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        refuse('SegEoMT', neck=neck, auxiliary_head=auxiliary_head)
        test_cfg = ConfigDict(test_cfg or dict(mode='whole'))
        head = {'train_cfg': train_cfg, **decode_head}
        super().__init__(backbone, head, train_cfg=train_cfg, test_cfg=test_cfg, **kwargs)

    def _init_decode_head(self, decode_head: Mapping[str, Any]) -> None:
        super()._init_decode_head(fitted(decode_head, self.backbone, 'SegEoMT'))

    def extract_feat(self, inputs: Tensor) -> JointFeatures:
        """The backbone and its images (B, C, H, W), for the head's queries."""
        return JointFeatures(self.backbone, inputs)
