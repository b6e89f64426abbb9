"""SigLIP 2 of transformers with NaFlex: an encoder that is given patches in place of images.

Source: https://github.com/huggingface/transformers (Apache-2.0).
"""

import math

from torch import Tensor, nn

from vit_backbones.sources.transformers_vit import Family, TransformersViT, two


class Siglip2(TransformersViT):
    """Adapter of `Siglip2VisionModel`, here for whole images of any size.

    The library's processor cuts images into patches and pads them to one count; here a batch has
    one size and is cut on the way in, so that nothing is padded or masked.

    Args:
        family: How the model is made up.
        vit: The unpruned model. Its config gets the size of image that its square table of
            positions stands for, which other families have there.
    """

    def __init__(self, family: Family, vit: nn.Module) -> None:
        if not hasattr(vit.config, 'image_size'):
            side = math.isqrt(vit.config.num_patches)
            vit.config.image_size = tuple(side * step for step in two(vit.config.patch_size))
        super().__init__(family, vit)

    def in_channels(self, vit: nn.Module) -> int:
        """See `Source.in_channels`."""
        return vit.config.num_channels

    def patch_embed_name(self) -> str | None:
        """See `Source.patch_embed_name`: none, since a linear layer embeds the patches."""
        return None

    def _embed(self, vit: nn.Module, images: Tensor, pos_interp: str) -> Tensor:
        rows, columns = grid = self._grid(vit, images)
        # (B, C, H, W) -> (B, C, h, ph, w, pw) -> (B, h, w, ph, pw, C) -> (B, h*w, ph*pw*C)
        cells = images.unflatten(3, (columns, -1)).unflatten(2, (rows, -1))
        patches = cells.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        return vit.embeddings.patch_embedding(patches) + self.table(vit, grid, pos_interp)
