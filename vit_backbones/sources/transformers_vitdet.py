"""ViTDet of transformers: a plain ViT on maps, some of its blocks with windows.

Source: https://github.com/huggingface/transformers (Apache-2.0).
"""

import copy

from torch import Tensor, nn

from vit_backbones.readout import Tokens
from vit_backbones.sources.transformers_vit import TransformersViT


class VitDet(TransformersViT):
    """Adapter of ViTDet, whose relative positions the library resamples to each image's grid.

    Its tokens are the library's `hidden_states`, which are maps; it has no final norm. The table of
    positions keeps the row of a CLS token that there is not.
    """

    def tokens(
        self, vit: nn.Module, images: Tensor, indices: list[int], pos_interp: str
    ) -> list[Tokens]:
        """See `Source.tokens`."""
        x, outputs = self._embed(vit, images, pos_interp), []  # (B, C, h, w)
        for index, layer in enumerate(self._layers(vit)[: indices[-1] + 1]):
            (x,) = self._run(layer, x)
            if index in indices:
                patches = x.flatten(2).transpose(1, 2)  # (B, C, h, w) -> (B, h*w, C)
                outputs.append(Tokens(patches, patches[:, :0], tuple(x.shape[-2:])))
        return outputs

    def num_position_prefix(self, vit: nn.Module) -> int:
        """See `Source.num_position_prefix`."""
        return 1

    def _embed(self, vit: nn.Module, images: Tensor, pos_interp: str) -> Tensor:
        embeddings = vit.embeddings
        if self._positions is not None:
            grid = self._grid(vit, images)
            table = self.table(vit, grid, pos_interp)[:, 1:].unflatten(1, grid)
            # of a shallow copy; the library takes every table for a square
            embeddings = copy.copy(embeddings)
            embeddings.get_absolute_positions = lambda *_: table
        return embeddings(images)
