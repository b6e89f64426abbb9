"""mmcv's attention of queries to maps, or each other, by one fused operator."""

from typing import Any

import torch.nn.functional as F
from mmcv.cnn.bricks.transformer import MultiheadAttention
from torch import Tensor


class MaskedAttention(MultiheadAttention):
    """mmcv's layer by `scaled_dot_product_attention`, without the weights that nobody reads."""

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        identity: Tensor | None = None,
        query_pos: Tensor | None = None,
        key_pos: Tensor | None = None,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """See mmcv; bool masks are True where a query must not look.

        They may be (B, Q, K) instead of (B * heads, Q, K), the same for all heads.
        """
        identity = query if identity is None else identity
        key = query if key is None else key
        value = key if value is None else value
        if key_pos is None and query_pos is not None and query_pos.shape == key.shape:
            key_pos = query_pos
        query = query if query_pos is None else query + query_pos
        key = key if key_pos is None else key + key_pos
        if not self.batch_first:
            query, key, value = (each.transpose(0, 1) for each in (query, key, value))
        out = self._attend(query, key, value, _allowed(attn_mask, key_padding_mask, len(query)))
        out = out if self.batch_first else out.transpose(0, 1)
        return identity + self.dropout_layer(self.proj_drop(out))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        attn = self.attn
        weights = attn.in_proj_weight.chunk(3)
        biases = (None,) * 3 if attn.in_proj_bias is None else attn.in_proj_bias.chunk(3)
        of_heads = (
            F.linear(x, weight, bias).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        dropout = attn.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(*of_heads, attn_mask=mask, dropout_p=dropout)
        return attn.out_proj(out.transpose(1, 2).flatten(2))


def _allowed(blocked: Tensor | None, padding: Tensor | None, batch: int) -> Tensor | None:
    """Mask for `scaled_dot_product_attention`: a bool one is True where a query looks."""
    if blocked is not None and blocked.ndim == 3:
        blocked = blocked.unflatten(0, (batch, -1))
    if padding is not None:
        padding = padding[:, None, None]
        blocked = padding if blocked is None else blocked | padding
    return blocked if blocked is None or blocked.is_floating_point() else ~blocked
