"""The size at which an image goes into a model: what `--size` means."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from vit_backbones.position import Grid

Resize = Callable[[Grid], Grid]


def resizing(sides: Sequence[int] | None, fixed: Grid | None) -> Resize:
    """How sizes change.

    Args:
        sides: (H, W), or one number for the shorter side, which keeps the ratio; `None`: not.
        fixed: The only (H, W) that a model takes; `None` where any is welcome.

    Raises:
        ValueError: If there are not one or two sides of at least 1, or not those of the model.
    """
    if sides is not None and (len(sides) not in (1, 2) or min(sides) < 1):
        raise ValueError(
            f'--size takes the shorter side in pixels, or height and width, got '
            f'{" ".join(map(str, sides))}'
        )
    if fixed is not None:
        if sides is not None and (*sides, *sides)[:2] != fixed:
            raise ValueError(
                f'--size {" ".join(map(str, sides))}: the model takes images of '
                f'{fixed[0]}x{fixed[1]} alone; leave --size out, or build it for another size by '
                f'--img-size H W'
            )
        return lambda size: fixed
    if sides is None:
        return lambda size: size
    if len(sides) == 2:
        return lambda size: (sides[0], sides[1])
    return lambda size: _by_shorter_side(size, sides[0])


def _by_shorter_side(size: Grid, side: int) -> Grid:
    height, width = (max(side, round(length * side / min(size))) for length in size)
    return height, width


def within(side: int) -> Resize:
    """The longer side becomes `side`."""
    return lambda size: tuple(max(1, round(length * side / max(size))) for length in size)


def resized(pixels: np.ndarray, size: Grid) -> np.ndarray:
    """An image (H, W, 3) of uint8 at another size, (H', W', 3)."""
    if pixels.shape[:2] == tuple(size):
        return pixels
    height, width = size
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
