"""Where the blocks of a plain ViT look: attention weights as maps over the patches.

Libraries run attention by PyTorch's fused functions, which keep no weights. This module catches the
arguments of these functions, so one piece of code serves every layer that calls them.
"""

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vit_backbones.backbone import ViTFeatBackbone

_ROWS = 1024  # queries at a time, which bounds the memory


def reader(backbone: ViTFeatBackbone) -> str:
    """Name the token whose attention `attention_maps` gives."""
    return 'CLS token' if backbone.has_cls_token else 'mean of all patches'


@torch.no_grad()
def attention_maps(backbone: ViTFeatBackbone, images: Tensor) -> list[Tensor]:
    """Attention of the CLS token, or of the mean patch where there is none, to the patches.

    Gives (B, heads, h, w) for each block in `out_indices`, from (B, C, H, W) normalised images. The
    weights of the prefix tokens are left out; with them the sum is 1.

    Raises:
        ValueError: If not every layer attends once to the whole image, by
            `scaled_dot_product_attention` or `nn.MultiheadAttention`.
    """
    strides = {backbone.layer_strides[index] for index in backbone.out_indices}
    sides = backbone.padded_size(tuple(images.shape[-2:]))
    grid = tuple(side // step for side, step in zip(sides, max(strides), strict=True))
    num_prefix = backbone.num_prefix_tokens
    rows = slice(0, 1) if backbone.has_cls_token else slice(num_prefix, None)
    num_tokens = num_prefix + grid[0] * grid[1]
    catcher = _Catcher(len(images), num_tokens, rows, backbone.out_indices)
    with catcher:
        backbone(images)
    num_blocks = max(backbone.out_indices) + 1
    if catcher.count != num_blocks:
        raise ValueError(
            f'attention maps need a plain ViT whose blocks each attend to the whole image by '
            f'scaled_dot_product_attention or nn.MultiheadAttention (ViT, DeiT, DINOv2, DINOv3, '
            f'MAE, CLIP, SigLIP, EVA02, BEiT ...), and {backbone.model_name!r} does so '
            f'{catcher.count} times in {num_blocks} blocks'
        )
    return [catcher.kept[i][..., num_prefix:].unflatten(-1, grid) for i in backbone.out_indices]


def attention_weights(
    query: Tensor, key: Tensor, attn_mask: Tensor | None = None, *, scale: float | None = None
) -> Tensor:
    """Softmax weights of `scaled_dot_product_attention`: (B, heads, Q, K) float32, sum 1 over keys.

    Args:
        query: (B, heads, Q, d).
        key: (B, heads, K, d).
        attn_mask: Added to the logits, or a bool mask of the places to attend to.
        scale: Factor of the logits; 1 / sqrt(d) by default.
    """
    logits = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.mT
    if attn_mask is not None:
        is_bool = attn_mask.dtype == torch.bool
        logits = logits.masked_fill(~attn_mask, -torch.inf) if is_bool else logits + attn_mask
    return logits.softmax(-1, dtype=torch.float32)


class _Catcher(TorchFunctionMode):
    """Keeps (B, heads, N) mean weights of the queries `rows` in each attention among all N tokens.

    Those of the attentions `wanted` are `kept` by index; `count` is the number that have run.
    """

    def __init__(self, batch: int, num_tokens: int, rows: slice, wanted: tuple[int, ...]) -> None:
        super().__init__()
        self.batch, self.num_tokens, self.rows, self.wanted = batch, num_tokens, rows, wanted
        self.count, self.kept = 0, dict[int, Tensor]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.multi_head_attention_forward:
            asked = {'need_weights': True, 'average_attn_weights': False}
            output, weights = func(*args, **kwargs | asked)  # (B, heads, Q, K)
            if self._counts(weights.shape):
                self._keep(lambda: weights[:, :, self.rows].mean(2))
            return output, weights
        if func is F.scaled_dot_product_attention:
            mask = kwargs.get('attn_mask')
            if not isinstance(mask, Tensor | None):
                with self:  # it computes the attention itself, by this function
                    return mask.__torch_function__(func, types, args, kwargs)
            self._catch(*args, **kwargs)
        return func(*args, **kwargs)

    def _catch(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        *_: object,  # dropout is off in eval mode, and no image is causal
        scale: float | None = None,
        **options: object,
    ) -> None:
        if self._counts((*query.shape[:-1], key.shape[-2])):
            self._keep(lambda: self._mean(query, key, attn_mask, scale))

    def _counts(self, shape: tuple[int, ...]) -> bool:
        """Whether weights of this shape are those among all tokens of each image."""
        square = (self.num_tokens, self.num_tokens)
        return len(shape) == 4 and shape[0] == self.batch and tuple(shape[2:]) == square

    def _keep(self, mean: Callable[[], Tensor]) -> None:
        if self.count in self.wanted:
            self.kept[self.count] = mean()
        self.count += 1

    def _mean(
        self, query: Tensor, key: Tensor, attn_mask: Tensor | None, scale: float | None
    ) -> Tensor:
        """(B, heads, N), the mean over the queries of interest."""
        masks: Iterable[Tensor | None] = itertools.repeat(None)
        if attn_mask is not None:
            whole = attn_mask.expand(*attn_mask.shape[:-2], self.num_tokens, self.num_tokens)
            masks = whole[..., self.rows, :].split(_ROWS, dim=-2)
        parts = query[:, :, self.rows].split(_ROWS, dim=2)
        sums = (
            attention_weights(part, key, mask, scale=scale).sum(2)
            for part, mask in zip(parts, masks, strict=False)
        )
        return sum(sums) / sum(part.shape[2] for part in parts)
