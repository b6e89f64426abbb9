"""Attention layers that follow a layout, if their block is called with `attn_mask=layout`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vit_backbones.attention import REL_POS
from vit_backbones.attention.relative import attend_relatively, relative_biases
from vit_backbones.attention.windows import Layout, one_call


def let_follow(attn: nn.Module) -> None:
    """Let a layer, whose own tables `REL_POS` it uses, follow any layout; the layer stays."""
    if _enter not in attn._forward_pre_hooks.values():
        attn.register_forward_pre_hook(_enter, with_kwargs=True)
        attn.register_forward_hook(_leave, with_kwargs=True)


def _enter(
    attn: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Tensor, ...], dict[str, Any]] | None:
    layout = kwargs.get('attn_mask')
    if not isinstance(layout, Layout):
        return None
    tables = [getattr(attn, name) for name in REL_POS if hasattr(attn, name)]
    changed = dict(attn_mask=_Attending(layout, tables))
    if kwargs.get('rope') is not None:
        changed['rope'] = layout.arranged(kwargs['rope'])
    x, *others = args
    return (layout.arranged(x), *others), kwargs | changed


def _leave(
    attn: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any], out: Tensor
) -> Tensor:
    attending = kwargs.get('attn_mask')
    return attending.layout.restored(out) if isinstance(attending, _Attending) else out


class _Attending:
    """Stands for a mask, and computes the `scaled_dot_product_attention` that is called with it."""

    def __init__(self, layout: Layout, tables: Sequence[Tensor]) -> None:
        self.layout, self.tables = layout, tables

    @classmethod
    def __torch_function__(
        cls,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Tensor:
        options = dict(kwargs or {})
        attending = options.pop('attn_mask', None)
        if func is not F.scaled_dot_product_attention or not isinstance(attending, cls):
            return NotImplemented
        return attending.attend(*args, **options)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        dropout_p: float = 0.0,
        is_causal: bool = False,  # no image is
        scale: float | None = None,
    ) -> Tensor:
        """(B, heads, P + windows * n, d) each; patches see a window and the prefix, these all."""
        options = dict(dropout_p=dropout_p, scale=scale or query.shape[-1] ** -0.5)
        mask = self.layout.hidden if self.tables else self.layout.keys
        if self.layout.windowed:
            return self._in_windows(query, key, value, mask, **options)
        return self._together(query, key, value, mask, **options)

    def _together(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: float
    ) -> Tensor:
        if not self.tables:
            return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, **options)
        biases = relative_biases(query, self.tables, self.layout, mask, options['scale'])
        return attend_relatively(query, key, value, biases, self.layout.sides, **options)

    def _in_windows(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: float
    ) -> Tensor:
        layout, num_prefix = self.layout, self.layout.num_prefix
        patches, done = (query, key, value), []
        if num_prefix:
            sizes = (num_prefix, query.shape[2] - num_prefix)
            prefix, patches = zip(*(x.split(sizes, dim=2) for x in patches), strict=True)
        query, key, value = (x.unflatten(2, (math.prod(layout.counts), -1)) for x in patches)
        if num_prefix:
            key, value = map(_with_prefix, prefix[1:], (key, value))
            every, seen = (key.flatten(2, 3), value.flatten(2, 3)), layout.seen_by_prefix.to(query)
            first = prefix[0].clone()  # or the backward pass keeps all that the layer projects
            done = [F.scaled_dot_product_attention(first, *every, attn_mask=seen, **options)]
        if one_call(query.device):
            done.append(self._some_windows(query, key, value, mask, **options))
        else:
            rows = map(layout.rows_of_windows, (query, key, value, mask))
            done += [self._some_windows(*row, **options) for row in zip(*rows, strict=True)]
        return done[0] if len(done) == 1 else torch.cat(done, dim=2)

    def _some_windows(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: float
    ) -> Tensor:
        """(B, heads, windows, K, d) to (B, heads, windows * n, d)."""
        batch, heads = query.shape[:2]
        if mask is not None:
            of_heads = heads if self.layout.num_prefix else 1
            mask = self._batched(mask.expand(batch, of_heads, -1, -1, -1))
        if self.layout.num_prefix:
            query = query.contiguous()  # see `first` above; keys and values are copies already
        query, key, value = map(self._batched, (query, key, value))
        out = self._together(query, key, value, mask, **options)
        out = out.unflatten(0, (batch, -1))
        return (out if self.layout.num_prefix else out.transpose(1, 2)).flatten(2, 3)

    def _batched(self, x: Tensor) -> Tensor:
        """(B, heads, windows, K, d) to (B * heads, windows, K, d), to copy no keys for the prefix.

        Without one to (B * windows, heads, K, d), which needs no copy of what the layer projects.
        """
        return (x if self.layout.num_prefix else x.transpose(1, 2)).flatten(0, 1)


def _with_prefix(prefix: Tensor, windows: Tensor) -> Tensor:
    """(B, heads, windows, n, d) with tokens (B, heads, P, d) before those of each window."""
    each = prefix[:, :, None].expand(-1, -1, windows.shape[2], -1, -1)
    return torch.cat([each, windows], dim=3)
