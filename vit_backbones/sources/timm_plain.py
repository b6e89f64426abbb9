"""timm's plain Vision Transformers: `VisionTransformer` and `Eva` (EVA02, DINOv3, PE).

Source: https://github.com/huggingface/pytorch-image-models (Apache-2.0).
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from timm.layers import AttentionPoolPrr, PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vit_backbones.attention import REL_POS, Attention
from vit_backbones.attention.joint import rotary_with_extra
from vit_backbones.attention.windows import inside
from vit_backbones.position import Grid, cells, widened
from vit_backbones.readout import Tokens, raw
from vit_backbones.sources.base import layer_in
from vit_backbones.sources.plain import PlainSource, Start
from vit_backbones.sources.timm_attention import block_options, check_joint, prepare
from vit_backbones.sources.timm_base import TimmSource
from vit_backbones.sources.timm_embedding import embedded
from vit_backbones.sources.timm_positions import fitted_axes

_AFTER_THE_BLOCKS = ('norm', 'fc_norm', 'attn_pool', 'head', 'head_dist')


class TimmPlain(PlainSource, TimmSource):
    """Adapter of plain ViTs; resamples their learned positions to each image's grid."""

    _has_relative_positions = False

    def __init__(self) -> None:
        self._attention = Attention()

    @staticmethod
    def suits(vit: nn.Module) -> bool:
        """Whether a model is one: a single convolution makes its patches, and it takes any size."""
        kinds = VisionTransformer, VisionTransformerDistilled, Eva
        plain = type(vit) in kinds and type(vit.patch_embed) is PatchEmbed
        return plain and vit.dynamic_img_size

    def start(
        self,
        vit: nn.Module,
        images: Tensor,
        pos_interp: str,
        sizes: Sequence[Grid] | None = None,
    ) -> Start:
        """As timm's `forward_intermediates` for `pos_interp='timm'`."""
        ph, pw = vit.patch_embed.patch_size
        grid, grids = (images.shape[-2] // ph, images.shape[-1] // pw), None
        if sizes is not None:
            images = images.where(inside(sizes, images.shape[-2:], images.device)[:, None], 0)
            grids = tuple(cells(size, (ph, pw)) for size in sizes)
            grids = None if set(grids) == {grid} else grids
        x = embedded(vit, images, self._positions(vit, pos_interp, grid, grids))
        return Start(x, grid, block_options(vit, self._attention, grid, grids, x.device))

    def blocks(self, vit: nn.Module) -> nn.ModuleList:
        return vit.blocks

    def joint_options(self, options: dict[str, Any], num_extra: int) -> dict[str, Any]:
        rope = rotary_with_extra(options.get('rope'), num_extra)
        return options if rope is None else options | dict(rope=rope)

    def prepare_joint(self, vit: nn.Module, num_blocks: int) -> None:
        check_joint(vit, self._attention, num_blocks)
        super().prepare_joint(vit, num_blocks)

    def set_attention(self, vit: nn.Module, attention: Attention) -> None:
        prepare(vit, attention)
        self._attention = attention
        self._has_relative_positions = attention.rel_pos

    def depth(self, vit: nn.Module) -> int:
        return len(vit.blocks)

    def embed_dims(self, vit: nn.Module) -> list[int]:
        return [vit.embed_dim] * len(vit.blocks)

    def strides(self, vit: nn.Module) -> list[Grid]:
        return [vit.patch_embed.patch_size] * len(vit.blocks)

    def num_prefix_tokens(self, vit: nn.Module) -> int:
        return vit.num_prefix_tokens

    def has_cls_token(self, vit: nn.Module) -> bool:
        return vit.cls_token is not None

    def drop_cls_token(self, vit: nn.Module) -> None:
        if vit.cls_token is None:
            return
        if self.num_position_prefix(vit):
            vit.pos_embed = nn.Parameter(vit.pos_embed.detach()[:, 1:].clone())
        vit.cls_token = None
        vit.num_prefix_tokens -= 1
        for module in vit.modules():
            # rotary attention keeps its own count of the prefix
            if module is not vit and hasattr(module, 'num_prefix_tokens'):
                module.num_prefix_tokens -= 1

    def prune(self, vit: nn.Module, indices: list[int], *, keep_norm: bool) -> None:
        if self.embedding_dim is not None:
            vit.reset_classifier(0)
            return
        pooling, norm = vit.attn_pool, vit.fc_norm
        vit.prune_intermediate_layers([max(indices)], prune_norm=not keep_norm, prune_head=True)
        if getattr(vit, 'keeps_attn_pool', False):
            vit.attn_pool, vit.fc_norm = pooling, norm

    def keep_attention_pooling(self, vit: nn.Module) -> None:
        if vit.attn_pool is None or self._lacks_cls(vit):
            super().keep_attention_pooling(vit)
        vit.keeps_attn_pool = True

    def attention_pooled(self, vit: nn.Module, tokens: Tokens) -> Tensor:
        """Equal to timm's `forward_head(..., pre_logits=True)`."""
        return vit.forward_head(raw(tokens), pre_logits=True)

    own_pooled = attention_pooled

    def keep_embedding(self, vit: nn.Module) -> None:
        """Timm's `forward_head(..., pre_logits=True)`."""
        if not vit.global_pool or self._lacks_cls(vit):
            super().keep_embedding(vit)
        self.embedding_dim = vit.embed_dim

    def layer_of(self, name: str, depth: int) -> int:
        return layer_in('blocks', name, depth, _AFTER_THE_BLOCKS)

    def patch_embed_name(self) -> str:
        return 'patch_embed.proj.weight'

    def set_input_size(self, vit: nn.Module, size: Grid, pos_interp: str) -> None:
        grid = cells(size, vit.patch_embed.patch_size)
        table = None if vit.pos_embed is None else self.table(vit, grid, pos_interp).detach()
        vit.set_input_size(img_size=self.padded(vit, size))
        if table is not None:
            vit.pos_embed.data = table  # timm's own is antialiased

    def convert(self, vit: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """After `translate` only relative positions remain to be resized."""
        tables = {n: torch.zeros_like(p) for n, p in vit.named_parameters() if n.endswith(REL_POS)}
        if tables and not tables.keys() & tensors.keys():
            print_log('the file has no relative positions: they start at zero', logger='current')
            return tensors | tables
        return tensors | fitted_axes(vit, tensors)

    def _lacks_cls(self, vit: nn.Module) -> bool:
        """Whether the head reads a CLS token that was dropped."""
        pooling = vit.attn_pool
        how = pooling.pool if isinstance(pooling, AttentionPoolPrr) else vit.global_pool
        return how == 'token' and not self.has_cls_token(vit)

    def _positions(
        self, vit: nn.Module, pos_interp: str, grid: Grid, grids: Sequence[Grid] | None
    ) -> Tensor | None:
        """The table of positions for images of these grids in a batch of that one."""
        if vit.pos_embed is None:
            return None
        if grids is None:
            return self.table(vit, grid, pos_interp)
        of = {own: widened(self.table(vit, own, pos_interp), own, grid) for own in set(grids)}
        return torch.cat([of[own] for own in grids])
