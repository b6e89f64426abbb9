"""Necks: from the feature maps of a backbone to the pyramid of strides that a head expects."""

from .layers import LN2d
from .simple_feature_pyramid import SimpleFeaturePyramid
from .vit_adapter import ViTAdapter

__all__ = ['LN2d', 'SimpleFeaturePyramid', 'ViTAdapter']
