"""mmdet's data preprocessor, telling backbones where images end."""

from mmdet.models import DetDataPreprocessor
from mmengine.registry import MODELS

from vit_backbones.image_sizes import announce


@MODELS.register_module()
class SizedDetDataPreprocessor(DetDataPreprocessor):
    """`DetDataPreprocessor` for backbones with `mask_padding=True`; its arguments are the same."""

    def forward(self, data: dict, training: bool = False) -> dict:
        """See `DetDataPreprocessor`; sizes are those of the images in `data['inputs']`."""
        announce(data['inputs'])
        return super().forward(data, training)
