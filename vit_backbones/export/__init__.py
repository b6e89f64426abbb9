"""A backbone in files that run without this package: ONNX, TorchScript, torch.export."""

from vit_backbones.export.graph import Graph
from vit_backbones.export.writing import Exported, check_target, export

__all__ = ['Exported', 'Graph', 'check_target', 'export']
