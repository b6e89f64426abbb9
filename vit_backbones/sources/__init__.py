"""One adapter a model library; `SOURCES` maps the `source` argument to it."""

from vit_backbones.sources.base import Source
from vit_backbones.sources.timm_vit import TimmViT

SOURCES: dict[str, type[Source]] = {'timm': TimmViT}

__all__ = ['SOURCES', 'Source', 'TimmViT']
