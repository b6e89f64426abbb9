"""Read configs, and find the classes, arguments and datasets that they name."""

from vit_backbones.config.loading import CONFIGS, load_config, use_scope

__all__ = ['CONFIGS', 'load_config', 'use_scope']
