"""Arrange pictures: titled panels, and rows of small pictures with a line or two below each."""

import functools
import io
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from vit_backbones.files import check_writable

THUMBNAIL = 160  # longer side of a small picture, pixels
_GAP = 8
_LINE = 18  # height of a line of text
_RIM = 3  # of a frame
_GREY, _INK, _FAINT, _FRAME = '#c8c8c8', '#111111', '#666666', '#d62728'
_WIDE = 2.5  # panels of a larger width to height stand below each other
_PANEL_GAP, _PANEL_LINE = 6, 22

Panel = tuple[str, np.ndarray]


class Tile(NamedTuple):
    """A picture on a sheet, drawn at its own size.

    Its `name`, shortened to fit, stands below it, `caption` in between; `frame` draws a red frame.
    """

    picture: Image.Image
    name: str
    caption: str = ''
    frame: bool = False


Row = tuple[str, Sequence[Tile]]


def draw_sheet(rows: Sequence[Row]) -> Image.Image:
    """Draw rows of pictures below their titles, aligned at the lower edges, text below each."""
    drawn = [_draw_row(title, tiles) for title, tiles in rows]
    size = max(row.width for row in drawn), _GAP + sum(row.height for row in drawn)
    sheet = Image.new('RGB', size, 'white')
    top = _GAP
    for row in drawn:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def in_rows(tiles: Iterable[Tile], width: int) -> list[Row]:
    """Break tiles into rows without a title, each as long as fits into a sheet's width."""
    rows: list[list[Tile]] = []
    left = 0
    for tile in tiles:
        if not rows or left + _step(tile) > width:
            rows.append([])
            left = _GAP
        rows[-1].append(tile)
        left += _step(tile)
    return [('', row) for row in rows]


def unreadable() -> Image.Image:
    """A grey thumbnail for an image that cannot be read."""
    picture = Image.new('RGB', (THUMBNAIL, THUMBNAIL * 3 // 4), _GREY)
    middle = (picture.width / 2, picture.height / 2)
    ImageDraw.Draw(picture).text(middle, 'cannot be read', _FAINT, font(12), anchor='mm')
    return picture


def thumbnail(picture: Image.Image, width: int = THUMBNAIL, height: int = 0) -> Image.Image:
    """Scale a picture to fit into a box, by default a square one, and keep its shape."""
    scale = min(width / picture.width, (height or width) / picture.height)
    size = tuple(max(1, round(edge * scale)) for edge in picture.size)
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def draw_panels(rows: Sequence[Sequence[Panel]], side: int = 640) -> Image.Image:
    """Draw rows of titled panels; very wide panels stand in columns instead.

    Panels are (H, W, 3) uint8 RGB, all of one size; they shrink to a longer side of `side`.
    """
    height, width = rows[0][0][1].shape[:2]
    if width > _WIDE * height:
        rows = list(itertools.zip_longest(*rows, fillvalue=('', np.full((1, 1, 3), 255, np.uint8))))
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(scale * width)), max(1, round(scale * height)))
    letters = font(13)
    rows = [[(printable(title), pixels) for title, pixels in row] for row in rows]
    titles = [title for row in rows for title, _ in row]
    step_x = max(size[0], *(round(letters.getlength(title)) for title in titles)) + _PANEL_GAP
    step_y = size[1] + _PANEL_LINE + _PANEL_GAP
    picture = Image.new('RGB', (step_x * max(map(len, rows)), step_y * len(rows)), 'white')
    draw = ImageDraw.Draw(picture)
    for y, row in enumerate(rows):
        for x, (title, pixels) in enumerate(row):
            left, top = x * step_x + _PANEL_GAP // 2, y * step_y
            draw.text((left, top + 2), title, 'black', letters)
            panel = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BOX)
            picture.paste(panel, (left, top + _PANEL_LINE))
    return picture


def beside(panels: Iterable[np.ndarray], gap: int = 4) -> np.ndarray:
    """Put panels (H, W, 3) of one height side by side, white between them."""
    first, *others = panels
    white = np.full((len(first), gap, 3), 255, np.uint8)
    return np.hstack([first, *(part for panel in others for part in (white, panel))])


def enlarge(cells: np.ndarray, stride: int | tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Draw patches as squares over the pixels that they cover: (h, w, 3) to (H, W, 3).

    `stride` is in pixels from patch to patch, or (vertical, horizontal); patches are cut at the
    edge of the image, whose size is (H, W).
    """
    rows, columns = stride if isinstance(stride, tuple) else (stride, stride)
    large = cells.repeat(rows, axis=0).repeat(columns, axis=1)
    return np.ascontiguousarray(large[: size[0], : size[1]])


def png(picture: Image.Image | np.ndarray | Figure) -> bytes:
    """Encode a picture, an array (H, W, 3) or a figure, cut to its marks, as PNG."""
    content = io.BytesIO()
    if isinstance(picture, Figure):
        picture.savefig(content, bbox_inches='tight')
    else:
        picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
        picture.save(content, 'PNG')
    return content.getvalue()


def check_figure(path: Path) -> None:
    """Check before long work that a figure can be written to a file.

    Raises:
        ValueError: If no format has its suffix, or if it cannot be written.
    """
    known = sorted(FigureCanvasBase.get_supported_filetypes())
    if path.suffix and path.suffix.lower().lstrip('.') not in known:
        raise ValueError(
            f'{path}: no format of pictures is named {path.suffix!r}; use one of {", ".join(known)}'
        )
    check_writable(path)


def figure_file(figure: Figure, suffix: str = '.png') -> bytes:
    """Encode a whole figure in the format of a suffix, such as `'.svg'`."""
    content = io.BytesIO()
    figure.savefig(content, format=suffix.lstrip('.') or 'png')
    return content.getvalue()


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """A font with letters of many scripts; `size` in pixels."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / 'fonts/ttf/DejaVuSans.ttf', size)


def _step(tile: Tile) -> int:
    """Pixels from the left side of a tile to that of the next."""
    return max(tile.picture.width, THUMBNAIL) + _GAP


def _draw_row(title: str, tiles: Sequence[Tile]) -> Image.Image:
    title = printable(title)
    bottom = bool(title) * _LINE + max(tile.picture.height for tile in tiles) + _RIM
    lines = any(tile.caption for tile in tiles) + 1
    width = _GAP + max(sum(map(_step, tiles)), round(font(14).getlength(title)) + _GAP)
    row = Image.new('RGB', (width, bottom + lines * _LINE + 2 * _GAP), 'white')
    ImageDraw.Draw(row).text((_GAP, 0), title, _INK, font(14))
    left = _GAP
    for tile in tiles:
        _draw_tile(row, tile, left, bottom)
        left += _step(tile)
    return row


def _draw_tile(row: Image.Image, tile: Tile, left: int, bottom: int) -> None:
    draw, picture = ImageDraw.Draw(row), tile.picture
    top, below = bottom - picture.height, bottom + _RIM
    if tile.frame:
        right = left + picture.width
        draw.rectangle((left - _RIM, top - _RIM, right + _RIM - 1, below - 1), fill=_FRAME)
    row.paste(picture, (left, top))
    if tile.caption:
        draw.text((left, below), tile.caption, _FRAME if tile.frame else _INK, font(14))
        below += _LINE
    draw.text((left, below), _fitted(tile.name, _step(tile) - _GAP), _FAINT, font(11))


def printable(text: str) -> str:
    """A text without line breaks and other characters that cannot be drawn in a line."""
    return ''.join(each if each.isprintable() else '?' for each in text)


def unformatted(text: str) -> str:
    """A text for matplotlib, which would read formulas between dollar signs."""
    return printable(text).replace('$', r'\$')


def _fitted(name: str, width: int) -> str:
    """As much of the end of a name as fits: beginnings are often alike."""
    name = printable(name)
    if font(11).getlength(name) <= width:
        return name
    while name and font(11).getlength(f'…{name}') > width:
        name = name[1:]
    return f'…{name}'
