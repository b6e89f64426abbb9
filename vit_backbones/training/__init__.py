"""What training adds to MMEngine: hooks."""

from vit_backbones.training.hooks import CurvesHook, SkipUnreadableImagesHook
from vit_backbones.training.pictures import PredictionPicturesHook

__all__ = ['CurvesHook', 'PredictionPicturesHook', 'SkipUnreadableImagesHook']
