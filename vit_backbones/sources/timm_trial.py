"""A trial run of a timm model: the grids of its outputs, and the parameters that each needs."""

import re
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vit_backbones.position import Grid
from vit_backbones.readout import Tokens
from vit_backbones.sources.copies import twin


class Trial(NamedTuple):
    """Grids of all outputs, and of each parameter the outputs that need it."""

    grids: list[Grid]
    uses: dict[str, set[int]]


@torch.enable_grad()
def run(
    forward: Callable[[nn.Module, Tensor], list[Tokens]], vit: nn.Module, images: Tensor
) -> Trial:
    """Run a copy of the model on images, on their device, and back from each output."""
    copy = twin(vit, lambda tensor: tensor.to(images.device)).eval().requires_grad_()
    outputs = forward(copy, images)
    parameters = dict(copy.named_parameters())
    uses: dict[str, set[int]] = {name: set() for name in parameters}
    for index, output in enumerate(outputs):
        total = output.patches.sum() + output.prefix.sum()
        gradients = torch.autograd.grad(
            total, list(parameters.values()), retain_graph=True, allow_unused=True
        )
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                uses[name].add(index)
    return Trial([output.grid for output in outputs], uses)


@torch.no_grad()
def shape_of(
    forward: Callable[[nn.Module, Tensor], Tensor], vit: nn.Module, images: Tensor
) -> tuple[int, ...]:
    """Shape of a model's output for images, found on the meta device where that is possible."""
    try:
        on_meta = twin(vit, lambda tensor: tensor.to('meta')).eval()
        return tuple(forward(on_meta, images.to('meta')).shape)
    except Exception as error:  # a few look into their tensors
        if 'meta' not in str(error):
            raise
        return tuple(forward(twin(vit, Tensor.clone).eval(), images).shape)


def layers(vit: nn.Module, trial: Trial) -> dict[str, int]:
    """Layer of each parameter, and of each module, which is that of its last parameter."""
    depth = len(trial.grids)
    # beside them: embeddings
    stages = re.split(r'\.\d', vit.feature_info[0]['module'])[0] + '.'
    found: dict[str, int] = {}
    for name, _ in vit.named_parameters():
        first = min(trial.uses[name], default=depth)
        layer = first + 1 if first > 0 or name.startswith(stages) else 0
        parts = name.split('.')
        for place in ('.'.join(parts[:end]) for end in range(len(parts) + 1)):
            found[place] = max(layer, found.get(place, 0))
    return found
