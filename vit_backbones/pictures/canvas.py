"""Sheets of many pictures: rows of small ones with a line or two under each."""

import functools
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from vit_backbones.images import UnreadableImageError, read_image

THUMBNAIL = 160  # longer side of an image of a user, pixels
_GAP = 8
_LINE = 18  # height of a line of text
_RIM = 3  # of a frame
_GREY, _INK, _FAINT, _FRAME = '#c8c8c8', '#111111', '#666666', '#d62728'


class Tile(NamedTuple):
    """A picture of a sheet.

    Attributes:
        picture: As large as it is drawn.
        name: Stands under it, as far as it fits.
        caption: A line above the name.
        frame: Whether a frame sets it apart.
    """

    picture: Image.Image
    name: str
    caption: str = ''
    frame: bool = False


Row = tuple[str, Sequence[Tile]]


def draw_sheet(rows: Sequence[Row]) -> Image.Image:
    """Draw rows of pictures that stand on one line, with the text below them.

    Args:
        rows: A title, which may be empty, and the tiles below it, for each row.
    """
    drawn = [_draw_row(title, tiles) for title, tiles in rows]
    size = max(row.width for row in drawn), _GAP + sum(row.height for row in drawn)
    sheet = Image.new('RGB', size, 'white')
    top = _GAP
    for row in drawn:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def in_rows(tiles: Iterable[Tile], width: int) -> list[Row]:
    """Tiles in rows without a title, as many in each as fit into a sheet's width."""
    rows: list[list[Tile]] = []
    left = 0
    for tile in tiles:
        if not rows or left + _step(tile) > width:
            rows.append([])
            left = _GAP
        rows[-1].append(tile)
        left += _step(tile)
    return [('', row) for row in rows]


def tile_of(path: str | Path, caption: str = '', *, frame: bool = False) -> Tile:
    """The tile of an image of a user; of one that cannot be read a grey one."""
    try:
        picture = thumbnail(Image.fromarray(read_image(path)))
    except UnreadableImageError:
        picture = Image.new('RGB', (THUMBNAIL, THUMBNAIL * 3 // 4), _GREY)
        middle = (picture.width / 2, picture.height / 2)
        draw = ImageDraw.Draw(picture)
        draw.text(middle, 'cannot be read', _FAINT, font(12), anchor='mm')
    return Tile(picture, Path(path).name, caption, frame)


def thumbnail(picture: Image.Image, width: int = THUMBNAIL, height: int = 0) -> Image.Image:
    """A picture as large as fits into a box, in its own shape.

    Args:
        picture: Any.
        width: Of the box.
        height: Likewise; by default as wide.
    """
    scale = min(width / picture.width, (height or width) / picture.height)
    size = tuple(max(1, round(edge * scale)) for edge in picture.size)
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def png(picture: Image.Image) -> bytes:
    """A picture as the content of a PNG file."""
    content = io.BytesIO()
    picture.save(content, 'PNG')
    return content.getvalue()


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Letters of many scripts, so many pixels high."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / 'fonts/ttf/DejaVuSans.ttf', size)


def _step(tile: Tile) -> int:
    """From the left side of a tile to that of the next."""
    return max(tile.picture.width, THUMBNAIL) + _GAP


def _draw_row(title: str, tiles: Sequence[Tile]) -> Image.Image:
    line = bool(title) * _LINE + max(tile.picture.height for tile in tiles) + _RIM
    lines = any(tile.caption for tile in tiles) + 1
    width = _GAP + max(sum(map(_step, tiles)), round(font(14).getlength(title)) + _GAP)
    size = width, line + lines * _LINE + 2 * _GAP
    row = Image.new('RGB', size, 'white')
    draw = ImageDraw.Draw(row)
    draw.text((_GAP, 0), title, _INK, font(14))
    left = _GAP
    for tile in tiles:
        picture, top = tile.picture, line - tile.picture.height
        if tile.frame:
            box = (left - _RIM, top - _RIM, left + picture.width + _RIM - 1, line + _RIM - 1)
            draw.rectangle(box, fill=_FRAME)
        row.paste(picture, (left, top))
        below = line + _RIM
        if tile.caption:
            draw.text((left, below), tile.caption, _FRAME if tile.frame else _INK, font(14))
            below += _LINE
        name = _fitted(tile.name, _step(tile) - _GAP)
        draw.text((left, below), name, _FAINT, font(11))
        left += _step(tile)
    return row


def _fitted(name: str, width: int) -> str:
    """The end of a name, which tells pictures apart, as far as it fits."""
    if font(11).getlength(name) <= width:
        return name
    while name and font(11).getlength(f'…{name}') > width:
        name = name[1:]
    return f'…{name}'
