"""What training adds to MMEngine: hooks, and learning rates by layer."""

from vit_backbones.training.hooks import CurvesHook, SkipUnreadableImagesHook
from vit_backbones.training.layer_decay import ViTLayerDecayConstructor
from vit_backbones.training.pictures import PredictionPicturesHook

__all__ = [
    'CurvesHook',
    'PredictionPicturesHook',
    'SkipUnreadableImagesHook',
    'ViTLayerDecayConstructor',
]
