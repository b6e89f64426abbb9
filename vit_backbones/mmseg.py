"""For MMSegmentation, by one line: `custom_imports = dict(imports=['vit_backbones.mmseg'])`.

Registers the models and data preprocessors of this package that need mmseg.
"""

from mmengine.registry import MODELS
from mmseg.models import SegDataPreProcessor

from vit_backbones.heads.auxiliary_encoder_decoder import AuxiliaryEncoderDecoder
from vit_backbones.heads.batched_seg_mask2former import BatchedSegMask2FormerHead
from vit_backbones.heads.seg_eomt import SegEoMT
from vit_backbones.heads.seg_eomt_head import SegEoMTHead
from vit_backbones.heads.seg_plain_mask_head import SegPlainMaskHead
from vit_backbones.heads.window_encoder_decoder import WindowEncoderDecoder
from vit_backbones.hosts.image_sizes import AnnouncesImageSizes

__all__ = [
    'AuxiliaryEncoderDecoder',
    'BatchedSegMask2FormerHead',
    'SegEoMT',
    'SegEoMTHead',
    'SegPlainMaskHead',
    'SizedSegDataPreProcessor',
    'WindowEncoderDecoder',
]


@MODELS.register_module()
class SizedSegDataPreProcessor(AnnouncesImageSizes, SegDataPreProcessor):
    """`SegDataPreProcessor` for backbones with `mask_padding=True`; its arguments are the same."""
