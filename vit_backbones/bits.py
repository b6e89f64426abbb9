"""What image files show before they are decoded: bits of a channel, and whether they end.

Pillow shows deep colours as 8-bit. OpenCV fills the rest of half a file with grey.
"""

import os
import re
from pathlib import Path
from typing import BinaryIO

from PIL.TiffImagePlugin import BITSPERSAMPLE, ImageFileDirectory_v2

_PNG_START, _JPEG_START = b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff'
_TAIL = 64  # bytes in which the end of most files lies
_PNM = re.compile(rb'P[2356](?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+(\d+)\s')


def bits_of(path: str | Path) -> int:
    """Bits of a channel of a PNG, TIFF or PNM file; 8 for all else, which is mostly so."""
    try:
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
    if start[:4] in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'):
        file.seek(0)
        directory = ImageFileDirectory_v2(file.read(16 if start[2:4].strip(b'\0') == b'+' else 8))
        file.seek(directory.next)
        directory.load(file)
        return max(directory.get(BITSPERSAMPLE, (8,)))
    found = _PNM.match(start)
    return int(found[1]).bit_length() if found else 8
