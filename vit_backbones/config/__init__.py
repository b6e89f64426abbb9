"""Read configs, and find what they name: classes, arguments, datasets."""

from vit_backbones.config.loading import CONFIGS, load_config, use_scope

__all__ = ['CONFIGS', 'load_config', 'use_scope']
