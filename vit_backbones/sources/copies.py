"""Copies of a model on other tensors: the model's own, or tensors without storage."""

import copy
from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor, nn

Change = Callable[[Tensor], Tensor]


def twin(vit: nn.Module, buffer: Change, parameter: Change | None = None) -> nn.Module:
    """A copy of a model, its tensors mapped by one or two functions; shared ones stay shared."""
    memo: dict[int, object] = {id(tensor): buffer(tensor) for tensor in vit.buffers()}
    for weight in vit.parameters():
        new = (parameter or buffer)(weight.detach())
        memo[id(weight)] = nn.Parameter(new, weight.requires_grad)
    return copy.deepcopy(vit, memo=memo)


def view(
    module: nn.Module,
    parameters: Mapping[str, Tensor | None] = MappingProxyType({}),
    **children: nn.Module,
) -> nn.Module:
    """A shallow copy with some other parameters and children; the module stays as it is."""
    seen = copy.copy(module)
    for name in parameters:
        vars(seen).pop(name, None)  # FSDP hides parameters behind attributes while it runs
    seen._parameters = {**module._parameters, **parameters}
    seen._modules = {**module._modules, **children}
    return seen


def hollow(module: nn.Module) -> nn.Module:
    """A copy of any model whose tensors have no values; all that is no tensor stays shared."""
    shell = copy.copy(module)
    shell._parameters = {
        name: weight if weight is None else nn.Parameter(weight.detach().to('meta'), False)
        for name, weight in module._parameters.items()
    }
    shell._buffers = {
        name: tensor if tensor is None else tensor.to('meta')
        for name, tensor in module._buffers.items()
    }
    shell._modules = {
        name: child if child is None else hollow(child) for name, child in module._modules.items()
    }
    return shell
