"""The encoders of transformers that do not run as a plain ViT does.

Source: https://github.com/huggingface/transformers (Apache-2.0).
"""

import copy
import math
from typing import Any

from torch import Tensor, nn

from vit_backbones.position import Grid
from vit_backbones.readout import Tokens, avg_featmap, cls
from vit_backbones.sources.base import cannot_join, needs_cls_token, two
from vit_backbones.sources.transformers_vit import Family, TransformersViT

_RELATIVE = 'has relative positions, which queries lack'


class ClipVision(TransformersViT):
    """Adapter of CLIP's vision encoder, which has a norm in front of the blocks."""

    def own_pooled(self, vit: nn.Module, tokens: Tokens) -> Tensor:
        return vit.post_layernorm(cls(tokens))

    def _embed(self, vit: nn.Module, images: Tensor, pos_interp: str) -> Tensor:
        return vit.pre_layrnorm(super()._embed(vit, images, pos_interp))


class Dinov3(TransformersViT):
    """Adapter of DINOv3; its rotary positions are jittered in training, as the library does."""

    def _context(self, vit: nn.Module, images: Tensor) -> dict[str, object]:
        return {'position_embeddings': vit.rope_embeddings(images)}


class Beit(TransformersViT):
    """Adapter of BEiT, whose relative positions the library resamples to each image's grid."""

    def prepare_joint(self, vit: nn.Module, num_blocks: int) -> None:
        raise cannot_join(vit, _RELATIVE)

    def drop_cls_token(self, vit: nn.Module) -> None:
        """Its relative positions count the token."""
        raise ValueError(needs_cls_token(vit))

    def _context(self, vit: nn.Module, images: Tensor) -> dict[str, object]:
        shared = vit.shared_position_bias
        bias = None if shared is None else shared(self._grid(vit, images))
        return {'attention_mask': bias, 'resolution': images.shape[-2:]}


class Siglip2(TransformersViT):
    """Adapter of `Siglip2VisionModel`, here for whole images of any size.

    The library's processor cuts images into patches and pads them to one count; here all images of
    a batch have one size and are cut in `tokens`, so nothing is padded or masked.
    """

    def __init__(self, family: Family, vit: nn.Module) -> None:
        # that of its square table of positions, as other families have it
        if not hasattr(vit.config, 'image_size'):
            side = math.isqrt(vit.config.num_patches)
            vit.config.image_size = tuple(side * step for step in two(vit.config.patch_size))
        super().__init__(family, vit)

    def in_channels(self, vit: nn.Module) -> int:
        return vit.config.num_channels

    def patch_embed_name(self) -> str | None:
        """None, since a linear layer embeds the patches."""
        return None

    def _embed(self, vit: nn.Module, images: Tensor, pos_interp: str) -> Tensor:
        rows, columns = grid = self._grid(vit, images)
        # (B, C, H, W) -> (B, C, h, ph, w, pw) -> (B, h, w, ph, pw, C) -> (B, h*w, ph*pw*C)
        cells = images.unflatten(3, (columns, -1)).unflatten(2, (rows, -1))
        patches = cells.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        return vit.embeddings.patch_embedding(patches) + self.table(vit, grid, pos_interp)


class Swin(TransformersViT):
    """Adapter of Swin; its layers are the stages, before each halves the resolution.

    The tokens are the library's `reshaped_hidden_states` before downsampling, with strides of 4, 8,
    16 and 32 for a patch of 4. Windows are shifted where a map is larger than a window, and smaller
    maps are padded to a window. The library fails on smaller maps, and after one map of the
    window's size it never shifts again.
    """

    calls_layers = False

    def prepare_joint(self, vit: nn.Module, num_blocks: int) -> None:
        raise cannot_join(vit, 'has stages with windows')

    def tokens(
        self, vit: nn.Module, images: Tensor, indices: list[int], pos_interp: str
    ) -> list[Tokens]:
        (x, grid), outputs = self._embed(vit, images, pos_interp), []
        for index, stage in enumerate(self.blocks(vit)[: indices[-1] + 1]):
            for number, block in enumerate(stage.blocks):
                shift = (
                    block.window_size // 2 if number % 2 and min(grid) > block.window_size else 0
                )
                run = _shifted(block, shift)
                x, _ = self._run(vit, run, x, grid, always_partition=True)
            if index in indices:
                outputs.append(Tokens(x, x[:, :0], grid))
            if stage.downsample is not None:
                x, grid = stage.downsample(x, grid), (grid[0] // 2, grid[1] // 2)
        return outputs

    def embed_dims(self, vit: nn.Module) -> list[int]:
        return [vit.config.embed_dim * 2**stage for stage in range(self.depth(vit))]

    def strides(self, vit: nn.Module) -> list[Grid]:
        ph, pw = two(vit.config.patch_size)
        return [(ph * 2**stage, pw * 2**stage) for stage in range(self.depth(vit))]

    def keep_embedding(self, vit: nn.Module) -> None:
        """The mean of the patches."""
        self.embedding_dim = self.embed_dims(vit)[-1]

    def own_pooled(self, vit: nn.Module, tokens: Tokens) -> Tensor:
        return avg_featmap(tokens)

    def prune(self, vit: nn.Module, indices: list[int], *, keep_norm: bool) -> None:
        super().prune(vit, indices, keep_norm=keep_norm)
        self.blocks(vit)[-1].downsample = None


class VitDet(TransformersViT):
    """Adapter of ViTDet, whose relative positions the library resamples to each image's grid.

    Its tokens are the library's `hidden_states`, which are maps; it has no final norm. The table of
    positions begins with a row for a CLS token, which the model does not have.
    """

    def prepare_joint(self, vit: nn.Module, num_blocks: int) -> None:
        raise cannot_join(vit, _RELATIVE)

    def num_position_prefix(self, vit: nn.Module) -> int:
        return 1

    def _embed(self, vit: nn.Module, images: Tensor, pos_interp: str) -> Tensor:
        embeddings = vit.embeddings
        if self._positions is not None:
            grid = self._grid(vit, images)
            table = self.table(vit, grid, pos_interp)[:, 1:].unflatten(1, grid)
            # in a shallow copy, since the library takes every table for a square
            embeddings = copy.copy(embeddings)
            embeddings.get_absolute_positions = lambda *_: table
        return embeddings(images)  # (B, C, h, w)

    def _context(self, vit: nn.Module, images: Tensor) -> dict[str, object]:
        return {}

    def _run(self, *args: Any, **options: Any) -> Tensor:
        return super()._run(*args, **options)[0]

    def _split(self, vit: nn.Module, x: Tensor, grid: Grid) -> Tokens:
        return super()._split(vit, x.flatten(2).transpose(1, 2), grid)  # to (B, h*w, C)


def _shifted(block: nn.Module, shift: int) -> nn.Module:
    """A shallow copy of a block with another shift of its windows, in cells."""
    view = copy.copy(block)
    view.shift_size = shift
    return view
