"""Bits of a channel in image files, from their headers: Pillow shows deep colours as 8-bit."""

import re
from pathlib import Path
from typing import BinaryIO

from PIL.TiffImagePlugin import BITSPERSAMPLE, ImageFileDirectory_v2

from vit_backbones.files import check_regular

_PNM = re.compile(rb'P[2356](?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+(\d+)\s')


def bits_of(path: str | Path) -> int:
    """Bits of a channel of a PNG, TIFF or PNM file; 8 for all else, which is mostly so."""
    try:
        check_regular(path)
        with open(path, 'rb') as file:
            return _bits(file)
    except Exception:  # a file that cannot be read is for its reader to report
        return 8


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
