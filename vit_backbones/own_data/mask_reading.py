"""Masks of classes, read whole beside their images."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

from vit_backbones.images import UnreadableImageError, opened
from vit_backbones.own_data.bands import banded
from vit_backbones.own_data.common import unreadable
from vit_backbones.terminal import progress

IGNORED = 255  # the label that mmseg ignores


class Mask(NamedTuple):
    """A mask: (width, height) in pixels, its labels without 255, and RGB by label if it has any."""

    path: Path
    size: tuple[int, int]
    labels: set[int]
    ignores: bool  # it holds 255
    palette: list[tuple[int, int, int]]


def read_all(images: Sequence[Path], paths: Sequence[Path]) -> list[Mask]:
    """The masks of images, which have their sizes."""
    with progress() as bar, ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        masks = pool.map(_read, images, paths)
        return list(bar.track(masks, len(paths), description='reading masks'))


def _read(image_path: Path, path: Path) -> Mask:
    width, height, turned = _shown(image_path)
    with _reading(path, 'image') as mask:
        array = np.asarray(mask)
        palette = np.reshape(mask.getpalette() or [], (-1, 3)).astype(int).tolist()
    if array.ndim != 2 or array.dtype.kind not in 'bui' or array.max(initial=0) > IGNORED:
        raise ValueError(
            f'mask {str(path)!r} holds colours or numbers beyond 255; a mask must have one '
            f'channel, in which a pixel is the number of its class from 0, or {IGNORED} to be '
            f'ignored'
        )
    if array.shape != (height, width):
        as_stored = turned and array.shape == (width, height)
        fix = 'turn the mask too, or take that orientation out' if as_stored else 'make them equal'
        raise ValueError(
            f'mask {str(path)!r} has {array.shape[1]}x{array.shape[0]} pixels, its image '
            f'{width}x{height}{" as its EXIF orientation turns it" * as_stored}: {fix}'
        )
    labels = set(np.flatnonzero(np.bincount(array.ravel())).tolist())
    known, ignores = labels - {IGNORED}, IGNORED in labels
    return Mask(path, (width, height), known, ignores, [tuple(color) for color in palette])


def _shown(path: Path) -> tuple[int, int, bool]:
    """Width and height of an image as it is shown, and whether EXIF turns it."""
    if (tiff := banded(path)) is not None:
        return *tiff.size[::-1], False
    with _reading(path, 'mask') as image:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        return *(image.size[::-1] if turned else image.size), turned


@contextlib.contextmanager
def _reading(path: Path, partner: str) -> Iterator[Image.Image]:
    try:
        with opened(path) as image:
            yield image
    except UnreadableImageError as error:
        raise unreadable(path, str(error).removeprefix(f'{path}: '), partner) from error
