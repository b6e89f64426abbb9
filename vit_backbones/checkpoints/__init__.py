"""Weight files: safe reading, fitting to a model, the report of the matches."""

from vit_backbones.checkpoints.fitting import PositionTable, Report, match
from vit_backbones.checkpoints.reading import contents, names, read_checkpoint, sections

__all__ = ['PositionTable', 'Report', 'contents', 'match', 'names', 'read_checkpoint', 'sections']
