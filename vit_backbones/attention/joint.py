"""Attention of extra tokens that see only some of the patches, in any library's blocks.

Tokens stand as [extra, prefix, patches]. Only rows of extra tokens are masked, and only in the
columns of patches: so all other rows attend in a call without a mask, by flash attention, and there
is no N x N tensor.

Source: Kerssies et al., Your ViT is Secretly an Image Segmentation Model, CVPR 2025.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class QueryMask:
    """The patches that extra tokens attend to; to extra and prefix tokens they all do.

    Args:
        allowed: (B, Q, h*w), whether a token attends to a patch.
        num_prefix: Tokens between the extra ones and the patches.
    """

    def __init__(self, allowed: Tensor, num_prefix: int) -> None:
        self.num_extra = allowed.shape[1]
        self.keys = F.pad(allowed, (self.num_extra + num_prefix, 0), value=True)[:, None]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        """(B, heads, Q + P + h*w, d) each, as `scaled_dot_product_attention`."""
        extra, others = query.split([self.num_extra, query.shape[2] - self.num_extra], dim=2)
        masked = F.scaled_dot_product_attention(extra, key, value, attn_mask=self.keys, **options)
        whole = F.scaled_dot_product_attention(others, key, value, **options)
        return torch.cat([masked, whole], dim=2)


def run_jointly(block: nn.Module, x: Tensor, mask: QueryMask | None, **options: Any) -> Tensor:
    """A block's output for tokens (B, Q + P + h*w, C), of which the first Q attend by a mask.

    Args:
        block: Calls `scaled_dot_product_attention`, or PyTorch's `nn.MultiheadAttention`.
        x: The tokens.
        mask: `None` if all tokens attend to everything.
        **options: Further arguments of the block.

    Raises:
        ValueError: The block attends in another way, which no mask reaches.
    """
    if mask is None:
        return block(x, **options)
    calls: list[object] = []
    with _Masked(mask, type(block).__name__, calls):
        out = block(x, **options)
    if not calls:
        raise _refusal(
            type(block).__name__,
            'computes its attention by itself; build it with fused attention '
            '(scaled_dot_product_attention)',
        )
    return out


def rotary_with_extra(rope: Tensor | None, num_extra: int) -> Tensor | None:
    """timm's rotary positions (..., N, D), sines before cosines, that do not turn more tokens.

    timm skips the prefix by its count; here further tokens stand in front of it.
    """
    if rope is None:
        return None
    half = rope.shape[-1] // 2
    unmoved = rope.new_zeros(*rope.shape[:-2], num_extra, rope.shape[-1])
    unmoved[..., half:] = 1
    return torch.cat([unmoved, rope], dim=-2)


class _Masked(TorchFunctionMode):
    """Attention within it follows a mask."""

    def __init__(self, mask: QueryMask, block: str, calls: list[object]) -> None:
        super().__init__()
        self.mask, self.block, self.calls = mask, block, calls

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            return self._multi_head(*args, **kwargs)
        return func(*args, **kwargs)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **options: Any,
    ) -> Tensor:
        if attn_mask is not None or is_causal:
            raise _refusal(self.block, 'has a mask of its own')
        self.calls.append(F.scaled_dot_product_attention)
        return self.mask.attend(query, key, value, dropout_p=dropout_p, **options)

    def _multi_head(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        embed_dim: int,
        num_heads: int,
        in_weight: Tensor | None,
        in_bias: Tensor | None,
        bias_k: Tensor | None,
        bias_v: Tensor | None,
        add_zero_attn: bool,
        dropout_p: float,
        out_weight: Tensor,
        out_bias: Tensor | None,
        training: bool = True,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        **options: Any,
    ) -> tuple[Tensor, None]:
        """Self-attention of tokens (N, B, C), as PyTorch's, which gives no weights."""
        if not (query is key is value) or in_weight is None or bias_k is not None or add_zero_attn:
            raise _refusal(self.block, 'attends to more than its tokens')
        if key_padding_mask is not None:
            raise _refusal(self.block, 'has a mask of its own')
        projected = F.linear(query, in_weight, in_bias).unflatten(-1, (3, num_heads, -1))
        parts = projected.permute(2, 1, 3, 0, 4).unbind()  # (B, heads, N, d) each
        dropout_p = dropout_p if training else 0.0
        out = self._attend(*parts, attn_mask=attn_mask, dropout_p=dropout_p)
        return F.linear(out.permute(2, 0, 1, 3).flatten(2), out_weight, out_bias), None


def _refusal(block: str, reason: str) -> ValueError:
    return ValueError(f'no mask of queries reaches the attention of {block}: it {reason}')
