"""What command lines name, ready to run: backbones, necks, trained models, data sets."""

from vit_backbones.models.chosen import Choice, Loaded, load_backbone, load_neck

__all__ = ['Choice', 'Loaded', 'load_backbone', 'load_neck']
