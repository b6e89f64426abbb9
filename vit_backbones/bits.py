"""What image files show before they are decoded: bits, bands of a TIFF, and whether they end.

Pillow shows deep colours as 8-bit. OpenCV fills the rest of half a file with grey.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from PIL.TiffImagePlugin import ImageFileDirectory_v2

_PNG_START, _JPEG_START = b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff'
_TIFF_STARTS = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
_MOST_PAGES = 64
_COPY = 0b101  # a smaller copy, or a mask
# Tags of a TIFF, and what they are where it has none
_TAGS = dict(width=256, height=257, bits=258, photometric=262, bands=277, planar=284)
_TAGS |= dict(extra=338, formats=339, copy=254, nodata=42113)
_DEFAULTS = dict(bits=(1,), photometric=1, bands=1, planar=1, extra=(), formats=(1,), copy=0)
_TAIL = 64  # bytes in which the end of most files lies
_PNM = re.compile(rb'P[2356](?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+(\d+)\s')


class Tiff(NamedTuple):
    """What a TIFF shows before it is decoded.

    Attributes:
        size: (H, W).
        bands: Their number.
        numbers: Their type, as NumPy calls it, such as `uint16`.
        photometric: 0 and 1 are grey, 2 is RGB, 3 a palette.
        extra: Of each band beyond those of `photometric`, 0 where it is no transparency.
        planar: Each band lies by itself.
        pages: Pictures in the file, without smaller copies of the first and masks.
        nodata: The value of pixels without data, as GDAL writes it.
    """

    size: tuple[int, int]
    bands: int
    numbers: str
    photometric: int
    extra: tuple[int, ...]
    planar: bool
    pages: int
    nodata: str | None


def tiff_of(path: str | Path) -> Tiff | None:
    """The header of a TIFF, `None` for another file; a damaged one raises what Pillow does."""
    check_regular(path)
    with open(path, 'rb') as file:
        pages = list(_pages(file)) if file.read(4) in _TIFF_STARTS else []
    if not pages:
        return None
    first = pages[0]
    kind = {2: 'int', 3: 'float'}.get(first['formats'][0], 'uint')
    return Tiff(
        size=(first['height'], first['width']),
        bands=first['bands'],
        numbers=f'{kind}{max(first["bits"])}',
        photometric=first['photometric'],
        extra=first['extra'],
        planar=first['planar'] == 2 and first['bands'] > 1,
        pages=sum(not page['copy'] & _COPY for page in pages),
        nodata=first['nodata'],
    )


def _pages(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """The tags of the first pictures of a TIFF."""
    file.seek(0)
    start = file.read(4)
    directory = ImageFileDirectory_v2(start + file.read(12 if b'+' in start else 4))
    for _ in range(_MOST_PAGES):
        file.seek(directory.next)
        directory.load(file)
        yield {name: directory.get(tag, _DEFAULTS.get(name)) for name, tag in _TAGS.items()}
        if not directory.next:
            return


def bits_of(path: str | Path | BinaryIO) -> int:
    """Bits of a channel of a PNG, TIFF or PNM file; 8 for all else, which is mostly so."""
    try:
        if not isinstance(path, str | Path):
            path.seek(0)
            return _bits(path)
        check_regular(path)
        with open(path, 'rb') as file:
            return _bits(file)
    except Exception:  # a file that cannot be read is for its reader to report
        return 8


def check_regular(path: object) -> None:
    """Refuse folders and devices, of which reading may never end; links count as their target.

    The `ValueError` does not name the path.
    """
    if not isinstance(path, str | Path) or os.path.isfile(path) or not os.path.exists(path):
        return
    raise ValueError(f'it is {"a folder" if os.path.isdir(path) else "a device"}, no file')


def check_whole(path: object) -> None:
    """Refuse folders, devices, empty files, and PNG and JPEG that end too early; others pass.

    The `ValueError` does not name the path.
    """
    check_regular(path)
    if not isinstance(path, str | Path) or not os.path.isfile(path):
        return
    with open(path, 'rb') as file:
        start = file.read(8)
        if not start:
            raise ValueError('it is empty')
        if start != _PNG_START and start[:3] != _JPEG_START:
            return
        file.seek(max(0, os.path.getsize(path) - _TAIL))
        ends = _ends(file.read(), start)
        if not ends:  # something may follow the image
            file.seek(0)
            ends = _ends(file.read(), start)
    if not ends:
        raise ValueError('it ends too early')


def _ends(content: bytes, start: bytes) -> bool:
    if start == _PNG_START:
        return b'IEND' in content
    place = 2 if content.startswith(_JPEG_START) else None
    while place is not None and content[place : place + 1] == b'\xff':  # a thumbnail has an end
        if content[place + 1 : place + 2] == b'\xda':
            break
        place += 2 + int.from_bytes(content[place + 2 : place + 4])
    return b'\xff\xd9' in content[place or 0 :]


def _bits(file: BinaryIO) -> int:
    start = file.read(256)
    if start.startswith(b'\x89PNG'):
        return start[24]
    if start[:4] in _TIFF_STARTS:
        bits = next(_pages(file))['bits']
        return max(bits if isinstance(bits, tuple) else (bits,))
    found = _PNM.match(start)
    return int(found[1]).bit_length() if found else 8
