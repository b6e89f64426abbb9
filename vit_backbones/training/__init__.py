"""What training adds to MMEngine: hooks, learning rates by layer, sharding by block."""

from vit_backbones.training.hooks import CurvesHook, SkipUnreadableImagesHook
from vit_backbones.training.layer_decay import ViTLayerDecayConstructor
from vit_backbones.training.pictures import PredictionPicturesHook
from vit_backbones.training.record import RecordHook
from vit_backbones.training.sharding import ViTFSDPStrategy

__all__ = [
    'CurvesHook',
    'PredictionPicturesHook',
    'RecordHook',
    'SkipUnreadableImagesHook',
    'ViTFSDPStrategy',
    'ViTLayerDecayConstructor',
]
