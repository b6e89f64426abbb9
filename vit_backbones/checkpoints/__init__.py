"""Weight files: safe reading, fitting to a model, the report of what matched."""

from vit_backbones.checkpoints.fitting import PositionTable, Report, match
from vit_backbones.checkpoints.reading import names, outline, read_checkpoint

__all__ = ['PositionTable', 'Report', 'match', 'names', 'outline', 'read_checkpoint']
