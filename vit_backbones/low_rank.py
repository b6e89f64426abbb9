"""Layers with LoRA's updates, for models that call a layer and for those that read its weight."""

from peft.tuners.lora import Linear
from torch import Tensor, nn


class UpdatedLinear(Linear):
    """peft's layer, whose `weight` has the updates too.

    Some models never call their layers: EVA, BEiT and Swin V2 of timm and PyTorch's attention hand
    `layer.weight` to a function.
    """

    @property
    def weight(self) -> Tensor:
        """The base layer's weight and all updates that are not merged into it."""
        weight = self.get_base_layer().weight
        for name in () if self.merged else self.active_adapters:
            weight = weight + self.get_delta_weight(name)
        return weight


class OpenedAttention(nn.MultiheadAttention):
    """PyTorch's attention with `in_proj_weight` in a linear layer, which can have updates."""

    @property
    def in_proj_weight(self) -> Tensor:
        """Weight (3C, C) of queries, keys and values."""
        return self.in_proj_linear.weight


def can_open(attention: nn.Module) -> bool:
    """Whether a module is PyTorch's attention with one weight for queries, keys and values."""
    return type(attention) is nn.MultiheadAttention and attention.in_proj_weight is not None


def open_attention(attention: nn.MultiheadAttention) -> None:
    """Move `in_proj_weight` to a linear layer, in place."""
    weight = attention.in_proj_weight
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device='meta')
    linear.weight = weight
    attention._parameters['in_proj_weight'] = None  # it keeps its place among them
    attention.in_proj_linear = linear
    attention.__class__ = OpenedAttention


def close_attention(attention: OpenedAttention) -> None:
    """Move the weight back, in place."""
    weight = attention.in_proj_linear.weight
    attention.__class__ = nn.MultiheadAttention
    del attention.in_proj_linear
    attention.in_proj_weight = weight
