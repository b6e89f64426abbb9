"""Contact sheets: rows of small images with a line under each."""

import functools
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from vit_backbones.images import UnreadableImageError, read_image

_SIDE = 160  # of an image, pixels
_GAP = 8
_LINE = 18  # height of a line of text
_RIM = 3  # of a frame
_GREY, _INK, _FAINT, _FRAME = '#c8c8c8', '#111111', '#666666', '#d62728'


class Tile(NamedTuple):
    """An image of a contact sheet.

    Attributes:
        path: Of the image; its name stands under it.
        caption: A line above the name.
        frame: Whether a frame sets it apart.
    """

    path: str
    caption: str = ''
    frame: bool = False


def draw_sheet(rows: Sequence[tuple[str, Sequence[Tile]]]) -> bytes:
    """Draw a contact sheet.

    Args:
        rows: A title, which may be empty, and the tiles below it, for each row.

    Returns:
        A PNG. An image that cannot be read is a grey tile.
    """
    drawn = [_draw_row(title, tiles) for title, tiles in rows]
    size = max(row.width for row in drawn), _GAP + sum(row.height for row in drawn)
    sheet = Image.new('RGB', size, 'white')
    top = _GAP
    for row in drawn:
        sheet.paste(row, (0, top))
        top += row.height
    return png(sheet)


def png(image: Image.Image) -> bytes:
    """The image as the content of a PNG file."""
    content = io.BytesIO()
    image.save(content, 'png', optimize=True)
    return content.getvalue()


def thumbnail(path: str | Path, side: int) -> Image.Image:
    """An image whose longer side is `side` pixels.

    Raises:
        UnreadableImageError: If it cannot be read.
    """
    image = Image.fromarray(read_image(path))
    scale = side / max(image.size)
    size = tuple(max(1, round(edge * scale)) for edge in image.size)
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _draw_row(title: str, tiles: Sequence[Tile]) -> Image.Image:
    """A title, images that stand on one line, and the text below them."""
    images = [_image(tile.path) for tile in tiles]
    line = bool(title) * _LINE + max(image.height for image in images) + _RIM
    lines = any(tile.caption for tile in tiles) + 1
    size = _GAP + len(tiles) * (_SIDE + _GAP), line + lines * _LINE + 2 * _GAP
    row = Image.new('RGB', size, 'white')
    draw = ImageDraw.Draw(row)
    draw.text((_GAP, 0), title, _INK, _font(14))
    for i, (tile, image) in enumerate(zip(tiles, images, strict=True)):
        left, top = _GAP + i * (_SIDE + _GAP), line - image.height
        if tile.frame:
            box = (left - _RIM, top - _RIM, left + image.width + _RIM - 1, line + _RIM - 1)
            draw.rectangle(box, fill=_FRAME)
        row.paste(image, (left, top))
        below = line + _RIM
        if tile.caption:
            draw.text((left, below), tile.caption, _FRAME if tile.frame else _INK, _font(14))
            below += _LINE
        draw.text((left, below), _fitted(draw, Path(tile.path).name), _FAINT, _font(11))
    return row


def _image(path: str) -> Image.Image:
    """A small image, or a grey tile."""
    try:
        return thumbnail(path, _SIDE)
    except UnreadableImageError:
        tile = Image.new('RGB', (_SIDE, _SIDE * 3 // 4), _GREY)
        middle = (tile.width / 2, tile.height / 2)
        ImageDraw.Draw(tile).text(middle, 'cannot be read', _FAINT, _font(12), anchor='mm')
        return tile


def _fitted(draw: ImageDraw.ImageDraw, name: str) -> str:
    """The end of a name, which tells images apart, as far as it fits under an image."""
    if draw.textlength(name, _font(11)) <= _SIDE:
        return name
    while name and draw.textlength(f'…{name}', _font(11)) > _SIDE:
        name = name[1:]
    return f'…{name}'


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / 'fonts/ttf/DejaVuSans.ttf', size)
