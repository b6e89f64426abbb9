"""mmdet's data preprocessor, telling backbones where images end."""

from mmdet.models import DetDataPreprocessor
from mmengine.registry import MODELS

from vit_backbones.image_sizes import TellsImageSizes


@MODELS.register_module()
class SizedDetDataPreprocessor(TellsImageSizes, DetDataPreprocessor):
    """`DetDataPreprocessor` for backbones with `mask_padding=True`; its arguments are the same."""
