"""mmseg's data preprocessor, telling backbones where images end."""

from mmengine.registry import MODELS
from mmseg.models import SegDataPreProcessor

from vit_backbones.image_sizes import TellsImageSizes


@MODELS.register_module()
class SizedSegDataPreProcessor(TellsImageSizes, SegDataPreProcessor):
    """`SegDataPreProcessor` for backbones with `mask_padding=True`; its arguments are the same."""
