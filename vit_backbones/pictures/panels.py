"""Titled panels in rows."""

import itertools
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from vit_backbones.pictures.canvas import font

_WIDE = 2.5  # images of a larger width to height stand below each other
_GAP = 6
_LINE = 22  # height of a title

Panel = tuple[str, np.ndarray]


def draw_panels(rows: Sequence[Sequence[Panel]], side: int = 640) -> Image.Image:
    """Put panels of one size into rows, each below its title.

    Args:
        rows: (title, (H, W, 3) uint8 RGB) in each, all of one H and W.
        side: Panels with a longer one are shrunk to it.

    Returns:
        The picture; panels of very wide images stand in columns instead.
    """
    height, width = rows[0][0][1].shape[:2]
    if width > _WIDE * height:
        rows = list(itertools.zip_longest(*rows, fillvalue=('', np.full((1, 1, 3), 255, np.uint8))))
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(scale * width)), max(1, round(scale * height)))
    letters = font(13)
    titles = [title for row in rows for title, _ in row]
    step_x = max(size[0], *(round(letters.getlength(title)) for title in titles)) + _GAP
    step_y = size[1] + _LINE + _GAP
    picture = Image.new('RGB', (step_x * max(map(len, rows)), step_y * len(rows)), 'white')
    draw = ImageDraw.Draw(picture)
    for y, row in enumerate(rows):
        for x, (title, pixels) in enumerate(row):
            corner = (x * step_x + _GAP // 2, y * step_y)
            draw.text((corner[0], corner[1] + 2), title, 'black', letters)
            panel = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BOX)
            picture.paste(panel, (corner[0], corner[1] + _LINE))
    return picture


def enlarge(cells: np.ndarray, stride: int | tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Patches as squares over the pixels that they cover: (h, w, 3) to (H, W, 3).

    Args:
        cells: A colour a patch.
        stride: Of the patches, or (vertical, horizontal).
        size: (H, W) of the image; what the last patches cover beyond it is cut off.
    """
    rows, columns = stride if isinstance(stride, tuple) else (stride, stride)
    large = cells.repeat(rows, axis=0).repeat(columns, axis=1)
    return np.ascontiguousarray(large[: size[0], : size[1]])
