"""Weight files: safe reading, fitting to a model, the report of what matched."""

from vit_backbones.checkpoints.files import read_checkpoint
from vit_backbones.checkpoints.matching import PositionTable, Report, match

__all__ = ['PositionTable', 'Report', 'match', 'read_checkpoint']
