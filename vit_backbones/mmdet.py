"""For MMDetection, by one line: `custom_imports = dict(imports=['vit_backbones.mmdet'])`.

Registers the heads, models and data preprocessors of this package that need mmdet.
"""

from mmdet.models import DetDataPreprocessor
from mmengine.registry import MODELS

from vit_backbones.heads.auxiliary_mask2former import AuxiliaryMask2Former
from vit_backbones.heads.batched_mask2former import BatchedMask2FormerHead
from vit_backbones.heads.eomt import EoMT
from vit_backbones.heads.eomt_head import EoMTHead
from vit_backbones.heads.located_mask2former import LocatedMask2FormerHead
from vit_backbones.heads.plain_mask_head import PlainMaskHead
from vit_backbones.hosts.image_sizes import AnnouncesImageSizes

__all__ = [
    'AuxiliaryMask2Former',
    'BatchedMask2FormerHead',
    'EoMT',
    'EoMTHead',
    'LocatedMask2FormerHead',
    'PlainMaskHead',
    'SizedDetDataPreprocessor',
]


@MODELS.register_module()
class SizedDetDataPreprocessor(AnnouncesImageSizes, DetDataPreprocessor):
    """`DetDataPreprocessor` for backbones with `mask_padding=True`; its arguments are the same."""
