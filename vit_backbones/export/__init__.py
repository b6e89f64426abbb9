"""A backbone in files that run without this package: ONNX, TorchScript, torch.export."""

from vit_backbones.export.graph import Graph
from vit_backbones.export.writing import TOLERANCE, Exported, export

__all__ = ['TOLERANCE', 'Exported', 'Graph', 'export']
