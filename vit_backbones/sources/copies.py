"""Copies of a model over other tensors: those of the model itself, or ones without storage."""

import copy
from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor, nn


def twin(
    vit: nn.Module, parameter: Callable[[Tensor], Tensor], buffer: Callable[[Tensor], Tensor]
) -> nn.Module:
    """A copy of a model; modules that it shares between places stay shared.

    Args:
        vit: Left unchanged.
        parameter: Gives the data of a parameter of the copy for that of the model's.
        buffer: Likewise for buffers.
    """
    memo: dict[int, object] = {id(tensor): buffer(tensor) for tensor in vit.buffers()}
    for weight in vit.parameters():
        memo[id(weight)] = nn.Parameter(parameter(weight.detach()), weight.requires_grad)
    return copy.deepcopy(vit, memo=memo)


def view(
    module: nn.Module,
    parameters: Mapping[str, Tensor | None] = MappingProxyType({}),
    **children: nn.Module,
) -> nn.Module:
    """A shallow copy that holds some other parameters and children; the module is left as it is."""
    seen = copy.copy(module)
    seen._parameters = {**module._parameters, **parameters}
    seen._modules = {**module._modules, **children}
    return seen
