"""Necks: from the feature maps of a backbone to the pyramid of strides that a head expects."""

from .layers import LN2d
from .simple_feature_pyramid import SimpleFeaturePyramid

__all__ = ['LN2d', 'SimpleFeaturePyramid']
