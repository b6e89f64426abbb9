"""MMEngine reads `.safetensors` files, for `load_from` and `init_cfg`, once this is imported."""

from typing import Any

from mmengine.runner import CheckpointLoader
from torch import Tensor

from vit_backbones.checkpoints import read_checkpoint


@CheckpointLoader.register_scheme(prefixes=r'(?!\w+://).*\.safetensors$')
def load_from_safetensors(filename: str, map_location: Any = None) -> dict[str, Tensor]:
    """Read the tensors to the CPU, from where a model takes them."""
    return read_checkpoint(filename)
