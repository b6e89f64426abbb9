"""A backbone, or a whole model, in files that run without this package: ONNX and others."""

from vit_backbones.export.graph import Graph
from vit_backbones.export.whole import WholeGraph
from vit_backbones.export.writing import Exported, check_target, export

__all__ = ['Exported', 'Graph', 'WholeGraph', 'check_target', 'export']
