"""mmseg's data preprocessor, telling backbones where images end."""

from mmengine.registry import MODELS
from mmseg.models import SegDataPreProcessor

from vit_backbones.image_sizes import announce


@MODELS.register_module()
class SizedSegDataPreProcessor(SegDataPreProcessor):
    """`SegDataPreProcessor` for backbones with `mask_padding=True`; its arguments are the same."""

    def forward(self, data: dict, training: bool = False) -> dict:
        """See `SegDataPreProcessor`; sizes are those of the images in `data['inputs']`."""
        announce(data['inputs'])
        return super().forward(data, training)
