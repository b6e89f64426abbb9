"""The vision encoders of transformers, run layer by layer.

Source: https://github.com/huggingface/transformers (Apache-2.0).
"""

import copy
import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vit_backbones.position import Grid, cells
from vit_backbones.readout import Tokens, raw
from vit_backbones.sources.base import layer_in, two
from vit_backbones.sources.plain import PlainSource, Start

_AFTER_THE_LAYERS = ('layernorm', 'norm', 'post_layernorm', 'pooler', 'head')


class TransformersViT(PlainSource):
    """Adapter of transformers' plain encoders, whose positions fit any grid.

    The tokens of layer i are the library's `hidden_states[i + 1]`; after the final norm, where
    there is one, those of the last layer are its `last_hidden_state`. CLIP has none: its
    `post_layernorm` is only for the pooled CLS token.

    Args:
        vit: The unpruned model; the adapter keeps only names and sizes.
    """

    def __init__(self, family: 'Family', vit: nn.Module) -> None:
        self._family, self._native = family, two(getattr(vit.config, family.image_size))
        self._positions = family.positions if family.positions in vit.state_dict() else None
        self._recompute = False
        # some layers need a mask; DINOv2's took none before transformers 5.18
        named = inspect.signature(self.blocks(vit)[0].forward).parameters
        self._masks = {'attention_mask': None} if 'attention_mask' in named else {}

    def start(self, vit: nn.Module, images: Tensor, pos_interp: str) -> Start:
        """As for the library's `hidden_states`."""
        grid, context = self._grid(vit, images), self._context(vit, images)
        x = self._embed(vit, images, pos_interp)
        return Start(x, grid, [context] * self.depth(vit))

    def blocks(self, vit: nn.Module) -> nn.ModuleList:
        return vit.get_submodule(self._family.layers)

    def recomputes(self, vit: nn.Module) -> bool:
        return self._recompute

    def prepare_joint(self, vit: nn.Module, num_blocks: int) -> None:
        vit.set_attn_implementation('sdpa')  # other implementations hide what they compute
        super().prepare_joint(vit, num_blocks)

    def depth(self, vit: nn.Module) -> int:
        return len(self.blocks(vit))

    def embed_dims(self, vit: nn.Module) -> list[int]:
        return [vit.config.hidden_size] * self.depth(vit)

    def strides(self, vit: nn.Module) -> list[Grid]:
        return [two(vit.config.patch_size)] * self.depth(vit)

    def layer_of(self, name: str, depth: int) -> int:
        return layer_in(self._family.layers, name, depth, _AFTER_THE_LAYERS)

    def prune(self, vit: nn.Module, indices: list[int], *, keep_norm: bool) -> None:
        """The token of masked pre-training goes too."""
        vit.set_submodule(self._family.layers, self.blocks(vit)[: max(indices) + 1])
        vit.embeddings.mask_token = None
        kept = {self._family.norm} if keep_norm else set()
        kept |= {self._family.pooling} if self.embedding_dim is not None else set()
        for name, _ in list(vit.named_children()):
            if name in _AFTER_THE_LAYERS and name not in kept:
                setattr(vit, name, nn.Identity())

    def keep_embedding(self, vit: nn.Module) -> None:
        """The library's `pooler_output`."""
        pooling = self._family.pooling
        built = pooling is None or getattr(vit, pooling, None) is not None
        loaded = pooling not in getattr(vit, 'not_loaded', ())
        reads_cls = self._family.class_tokens or pooling is None
        if not (built and loaded) or (reads_cls and not self.has_cls_token(vit)):
            super().keep_embedding(vit)
        pooled = getattr(vit.config, 'pooler_output_size', None) if pooling == 'pooler' else None
        self.embedding_dim = pooled or vit.config.hidden_size

    def own_pooled(self, vit: nn.Module, tokens: Tokens) -> Tensor:
        if self._family.pooling is None:
            return super().own_pooled(vit, tokens)
        return vit.get_submodule(self._family.pooling)(raw(tokens))

    def native_size(self, vit: nn.Module) -> Grid:
        return self._native

    def preprocess(self, vit: nn.Module) -> dict[str, object]:
        """From a preprocessor_config.json, else the family's."""
        mean, std = list(self._family.mean), list(self._family.std)
        return {'mean': mean, 'std': std, 'bgr_to_rgb': True}

    def expected(
        self, vit: nn.Module, layout: str, *, named: bool = False
    ) -> dict[str, object] | None:
        return self.preprocess(vit) if self._family.alike_normalised else None

    def set_checkpointing(self, vit: nn.Module) -> None:
        self._recompute = True

    def set_input_size(self, vit: nn.Module, size: Grid, pos_interp: str) -> None:
        """Nothing to do where no position table is learned."""
        if self._positions is None:
            return
        patch = two(vit.config.patch_size)
        grid = cells(size, patch)
        weight = vit.get_parameter(self._positions)
        # as (1, N, C), or (N, C) where the library keeps it as an nn.Embedding
        table = self.table(vit, grid, pos_interp).detach()
        weight.data = table.reshape(*weight.shape[:-2], -1, weight.shape[-1])
        size = (grid[0] * patch[0], grid[1] * patch[1])
        setattr(vit.config, self._family.image_size, size)

    def num_prefix_tokens(self, vit: nn.Module) -> int:
        return self._num_class_tokens(vit) + getattr(vit.config, 'num_register_tokens', 0)

    def has_cls_token(self, vit: nn.Module) -> bool:
        return self._family.class_tokens > 0 and not self._dropped_cls(vit)

    def drop_cls_token(self, vit: nn.Module) -> None:
        """Zeros in a buffer take its place, since the library's embeddings begin with it."""
        if not self.has_cls_token(vit):
            return
        name = self._family.cls_token
        zeros = torch.zeros_like(vit.embeddings.get_parameter(name), requires_grad=False)
        delattr(vit.embeddings, name)
        vit.embeddings.register_buffer(name, zeros, persistent=False)
        if self._positions is not None:
            table = vit.get_parameter(self._positions)  # (1, N, C) or (N, C)
            table.data = table.detach()[..., 1:, :].clone()

    def norm(self, vit: nn.Module) -> nn.Module | None:
        norm = None if self._family.norm is None else vit.get_submodule(self._family.norm)
        return None if isinstance(norm, nn.Identity) else norm

    def position_name(self, vit: nn.Module) -> str | None:
        return self._positions

    def grid(self, vit: nn.Module) -> Grid:
        rows, columns = two(getattr(vit.config, self._family.image_size))
        ph, pw = two(vit.config.patch_size)
        return rows // ph, columns // pw

    def num_position_prefix(self, vit: nn.Module) -> int:
        return self._num_class_tokens(vit)

    def interpolation(self, vit: nn.Module, pos_interp: str) -> dict[str, object]:
        """The library's own for `'timm'`; see the table of families."""
        original = self._family.original if pos_interp == 'original' else None
        return dict(original or self._family.resampling)

    def patch_embed_name(self) -> str | None:
        return f'{self._family.patches}.weight'

    def convert(self, vit: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """From the layouts of transformers 4.x and of models with heads."""
        from vit_backbones.sources.transformers_keys import convert_keys

        return convert_keys(vit, tensors)

    def _dropped_cls(self, vit: nn.Module) -> bool:
        return self._family.cls_token in dict(vit.embeddings.named_buffers(recurse=False))

    def _num_class_tokens(self, vit: nn.Module) -> int:
        return self._family.class_tokens - self._dropped_cls(vit)

    def _grid(self, vit: nn.Module, images: Tensor) -> Grid:
        ph, pw = two(vit.config.patch_size)
        return images.shape[-2] // ph, images.shape[-1] // pw

    def _embed(self, vit: nn.Module, images: Tensor, pos_interp: str) -> Tensor:
        """(B, C, H, W) to (B, P + h*w, C) with positions, by the library's own module."""
        embeddings, dropped = vit.embeddings, int(self._dropped_cls(vit))
        if self._positions is not None:
            table = self.table(vit, self._grid(vit, images), pos_interp)
            table = F.pad(table, (0, 0, dropped, 0))
            # in a shallow copy, since the library takes every table for a square
            embeddings = copy.copy(embeddings)
            embeddings.interpolate_pos_encoding = lambda *_: table
        sized = {'interpolate_pos_encoding': True} if self._family.sized else {}
        x = embeddings(images, **sized)
        return x[:, dropped:] if dropped else x  # Swin's is a pair

    def _context(self, vit: nn.Module, images: Tensor) -> dict[str, object]:
        """Further arguments of the layers."""
        return dict(self._masks)


class Family(NamedTuple):
    """Names and numbers of a kind of model.

    Attributes:
        model: Class of the encoder in transformers.
        layers: Path of its blocks or stages.
        norm: Name of the norm of its `last_hidden_state`; `None` if that is not normed.
        mean: Mean of the images, 0-255, RGB; so is `std`.
        patches: Path of the patch embedding's convolution.
        positions: State-dict key of the learned position table.
        class_tokens: CLS and distillation tokens; the table has a row for each.
        cls_token: Name of the CLS token in the embeddings.
        pooling: Name of the module that makes its `pooler_output`; `None` if that is the CLS token.
        image_size: Name of the size in the config for which the table is made.
        sized: Whether the embeddings have an option for other sizes, which they need.
        resampling: Keyword arguments of `resample_positions` with which the library resamples.
        original: Those of the weights' authors, if they differ.
        alike: Other classes of the library with the same parts under the same names.
        alike_normalised: Whether all published weights expect `mean` and `std`.
    """

    model: str
    layers: str
    norm: str | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    adapter: type[TransformersViT] = TransformersViT
    patches: str = 'embeddings.patch_embeddings.projection'
    positions: str | None = 'embeddings.position_embeddings'
    class_tokens: int = 1
    cls_token: str = 'cls_token'
    pooling: str | None = None
    image_size: str = 'image_size'
    sized: bool = False
    resampling: Mapping[str, object] = MappingProxyType({'antialias': False})
    original: Mapping[str, object] | None = None
    alike: tuple[str, ...] = ()
    alike_normalised: bool = True
