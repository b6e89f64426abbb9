"""What a ViT gives, and the shapes in which users want it."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Tokens(NamedTuple):
    """The tokens of one layer.

    Attributes:
        patches: (B, h*w, C), row-major.
        prefix: (B, P, C): CLS first where there is one, then registers; P may be 0.
        grid: (h, w), carried along because a token count does not tell a rectangle.
    """

    patches: Tensor
    prefix: Tensor
    grid: tuple[int, int]


def featmap(tokens: Tokens, cls_readout: str = 'ignore') -> Tensor:
    """Patch tokens as a map.

    Args:
        tokens: Tokens of one layer.
        cls_readout: `'ignore'` leaves the CLS token out, `'add'` adds it to every patch,
            `'concat'` puts it behind every patch's channels.

    Returns:
        (B, C, h, w), or (B, 2C, h, w) for `'concat'`.
    """
    patches = tokens.patches
    if cls_readout == 'add':
        patches = patches + tokens.prefix[:, :1]
    elif cls_readout == 'concat':
        patches = torch.cat([patches, tokens.prefix[:, :1].expand_as(patches)], dim=-1)
    # (B, h*w, C) -> (B, C, h*w) -> (B, C, h, w)
    return patches.transpose(1, 2).reshape(patches.shape[0], -1, *tokens.grid)


def cropped(tokens: Tokens, grid: tuple[int, int]) -> Tokens:
    """The patches of the top left part of the grid; the prefix as it is."""
    maps = tokens.patches.unflatten(1, tokens.grid)[:, : grid[0], : grid[1]]
    return Tokens(maps.flatten(1, 2), tokens.prefix, grid)


def cls(tokens: Tokens) -> Tensor:
    """The CLS token, (B, C)."""
    return tokens.prefix[:, 0]


def raw(tokens: Tokens) -> Tensor:
    """All tokens, prefix first, (B, P + h*w, C)."""
    return torch.cat([tokens.prefix, tokens.patches], dim=1)


def avg_featmap(tokens: Tokens) -> Tensor:
    """The mean of the patch tokens, (B, C)."""
    return tokens.patches.mean(dim=1)


def max_patches(tokens: Tokens) -> Tensor:
    """The largest value of each channel over the patches, (B, C)."""
    return tokens.patches.amax(dim=1)


def cls_and_avg(tokens: Tokens) -> Tensor:
    """The CLS token, and behind it the mean of the patch tokens, (B, 2C)."""
    return torch.cat([cls(tokens), avg_featmap(tokens)], dim=-1)


def gem(tokens: Tokens, power: float = 3.0, floor: float = 1e-6) -> Tensor:
    """Generalised mean of the patch tokens, (B, C): between the mean and the maximum.

    Radenović et al., Fine-tuning CNN image retrieval with no human annotation, 2018. Powers are
    taken in fp32.

    Args:
        tokens: Tokens of one layer.
        power: 1 is the mean, infinity the maximum.
        floor: Smaller values, negative ones among them, count as this.
    """
    powers = tokens.patches.float().clamp(min=floor).pow(power)
    return powers.mean(dim=1).pow(1 / power).to(tokens.patches.dtype)


FORMATTERS: dict[str, Callable[..., Tensor]] = {
    'featmap': featmap,
    'cls': cls,
    'cls_token': cls,
    'raw': raw,
    'avg_featmap': avg_featmap,
}

POOLINGS: dict[str, Callable[..., Tensor]] = {
    'cls': cls,
    'avg': avg_featmap,
    'max': max_patches,
    'cls+avg': cls_and_avg,
    'gem': gem,
}
