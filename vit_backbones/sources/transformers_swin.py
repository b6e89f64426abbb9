"""Swin of transformers: stages with windows of attention.

Source: https://github.com/huggingface/transformers (Apache-2.0).
"""

import copy

from torch import Tensor, nn

from vit_backbones.position import Grid
from vit_backbones.readout import Tokens, avg_featmap
from vit_backbones.sources.transformers_vit import TransformersViT, two


class Swin(TransformersViT):
    """Adapter of Swin; its layers are the stages, before each halves the resolution.

    The tokens are the library's `reshaped_hidden_states` before downsampling, with strides of 4, 8,
    16 and 32 for a patch of 4. Windows are shifted where a map is larger than one of them, and
    smaller maps are padded to one. The library fails on smaller maps, and once it has seen one of
    the window's size it never shifts again.
    """

    def tokens(
        self, vit: nn.Module, images: Tensor, indices: list[int], pos_interp: str
    ) -> list[Tokens]:
        """See `Source.tokens`."""
        (x, grid), outputs = self._embed(vit, images, pos_interp), []
        for index, stage in enumerate(self._layers(vit)[: indices[-1] + 1]):
            for number, block in enumerate(stage.blocks):
                shift = (
                    block.window_size // 2 if number % 2 and min(grid) > block.window_size else 0
                )
                x, _ = self._run(_shifted(block, shift), x, grid, always_partition=True)
            if index in indices:
                outputs.append(Tokens(x, x[:, :0], grid))
            if stage.downsample is not None:
                x, grid = stage.downsample(x, grid), (grid[0] // 2, grid[1] // 2)
        return outputs

    def embed_dims(self, vit: nn.Module) -> list[int]:
        """See `Source.embed_dims`."""
        return [vit.config.embed_dim * 2**stage for stage in range(self.depth(vit))]

    def strides(self, vit: nn.Module) -> list[Grid]:
        """See `Source.strides`."""
        ph, pw = two(vit.config.patch_size)
        return [(ph * 2**stage, pw * 2**stage) for stage in range(self.depth(vit))]

    def keep_embedding(self, vit: nn.Module) -> None:
        """See `Source.keep_embedding`: the mean of the patches."""
        self.embedding_dim = self.embed_dims(vit)[-1]

    def own_pooled(self, vit: nn.Module, tokens: Tokens) -> Tensor:
        """See `Source.own_pooled`."""
        return avg_featmap(tokens)

    def prune(self, vit: nn.Module, indices: list[int], *, keep_norm: bool) -> None:
        """See `Source.prune`."""
        super().prune(vit, indices, keep_norm=keep_norm)
        self._layers(vit)[-1].downsample = None


def _shifted(block: nn.Module, shift: int) -> nn.Module:
    """A shallow copy of a block with another shift of its windows, in cells."""
    view = copy.copy(block)
    view.shift_size = shift
    return view
