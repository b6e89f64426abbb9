"""Random weights for trials and comparisons."""

import torch
from torch import nn


def redraw(module: nn.Module, seed: int = 0, gain: float = 1.0) -> nn.Module:
    """Draw weights under which each part of a model matters, in place.

    At their default initialisation LayerScale is 1e-5, biases and tokens are zero: such a model
    gives almost the same output with all of its blocks deleted. Here matrices have the standard
    deviation gain/sqrt(inputs), LayerScale is 1, tokens and positions have 0.5, biases and norms
    0.3 about their usual value. A `gain` below 1 keeps some models from growing beyond all bounds.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, param in module.named_parameters():
        noise = torch.randn(param.shape, generator=generator)
        if 'gamma' in name:  # LayerScale
            drawn = torch.ones_like(param)
        elif name.endswith(('token', 'pos_embed', 'pos_embedding')):
            drawn = 0.5 * noise
        elif 'rope' in name:
            drawn = param * (1 + 0.1 * noise)
        elif param.ndim > 1:
            drawn = gain * noise / param[0].numel() ** 0.5
        else:
            drawn = 0.3 * noise + name.endswith('weight')
        param.data.copy_(drawn)
    return module
