"""The encoder-decoder of MMSegmentation (UPerNet and others) with inference by windows."""

from mmengine.registry import MODELS
from mmseg.models.segmentors import EncoderDecoder

from vit_backbones.heads.window_inference import WindowInference


@MODELS.register_module()
class WindowEncoderDecoder(WindowInference, EncoderDecoder):
    """`mmseg.EncoderDecoder` that takes `test_cfg=dict(mode='windows', crop_size=(512, 512))`.

    Its other arguments and modes are the same.
    """
