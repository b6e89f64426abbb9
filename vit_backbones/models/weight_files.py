"""The weights of a backbone as a file that backbones load."""

import json

from safetensors.torch import save

from vit_backbones.backbone import ViTFeatBackbone
from vit_backbones.checkpoints.fitting import GRID_KEY, LAYOUT_KEY
from vit_backbones.checkpoints.origin import decode


def weight_file(backbone: ViTFeatBackbone, **notes: str) -> bytes:
    """A `.safetensors` file in the keys of the model's library, with `notes` in its metadata.

    The metadata record what a load of it needs: the layout of the file that the weights came from,
    and the grid of the positions where their number does not show it.
    """
    tensors = {n: t.detach().cpu().contiguous() for n, t in backbone.vit.state_dict().items()}
    metadata = {'format': 'pt', LAYOUT_KEY: decode(backbone.weights_layout)}
    if hasattr(backbone, GRID_KEY):  # the number of rows does not show the grid
        metadata[GRID_KEY] = json.dumps(backbone.position_grid.tolist())
    return save(tensors, metadata=metadata | notes)
