"""Read images as a config's own pipeline loads them, so that tools see what a training sees."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import mmcv
import numpy as np
from mmcv.transforms import Compose, LoadImageFromFile
from mmengine.config import Config

from vit_backbones.bits import bits_of, check_regular
from vit_backbones.config.datasets import pipeline_of
from vit_backbones.config.explain import describe
from vit_backbones.config.facts import type_name
from vit_backbones.config.loading import use_scope
from vit_backbones.images import (
    Item,
    UnreadableImageError,
    as_picture,
    image_size,
    read_image,
)
from vit_backbones.position import Grid

DEEP_FIX = "color_type='unchanged', to_float32=True"


class Reader(NamedTuple):
    """How images are read.

    Attributes:
        read: Gives an image (H, W, C); three channels are RGB. It raises `UnreadableImageError`.
        size: Gives its (H, W).
        steps: The config's transforms, if they read otherwise than `read_image` does.
    """

    read: Callable[[str | Path], np.ndarray] = read_image
    size: Callable[[str | Path], Grid] = image_size
    steps: Sequence[Mapping[str, Any]] = ()

    @property
    def in_8_bits(self) -> bool:
        """Whether deeper files lose their low bits."""
        return not any(map(_keeps_bits, self.steps))

    def item(self, path: Path) -> Item:
        """An image that is no part of a walk."""
        return Item(path, str(path), path.stem, self.read(path))


RGB_READER = Reader()


def reader_of(config: Config) -> Reader:
    """The reader of a config: its own loading transforms, or `read_image` where that is equal.

    The transforms of the test or validation pipeline count, else of the training's.
    """
    steps = [dict(step) for step in _pipeline(config) if loads_images(type_name(step))]
    if not steps:
        return RGB_READER
    plain = len(steps) == 1 and _reads_rgb(steps[0])
    if not plain:
        use_scope(config)
    load = LoadImageFromFile() if plain else Compose(steps)
    known_bits = functools.lru_cache(maxsize=1024)(bits_of)  # `size` and `read` ask both

    def as_plain(path: str | Path) -> bool:  # the same pixels, and it refuses half a file
        return plain and known_bits(path) <= 8

    def read(path: str | Path) -> np.ndarray:
        return read_image(path) if as_plain(path) else _loaded(load, path)

    def size(path: str | Path) -> Grid:
        return image_size(path) if as_plain(path) else read(path).shape[:2]

    return Reader(read, size, () if plain else steps)


def normalised_by(config: Config) -> dict[str, Any] | None:
    """The `Normalize` of a config's pipeline, as a data preprocessor; `None` if it has none."""
    steps = [step for step in _pipeline(config) if type_name(step) == 'Normalize']
    if not steps:
        return None
    bgr_to_rgb = steps[0].get('to_rgb', True)
    return dict(mean=steps[0]['mean'], std=steps[0]['std'], bgr_to_rgb=bgr_to_rgb)


def _pipeline(config: Config) -> Sequence[Mapping[str, Any]]:
    try:
        return pipeline_of(config, ('test', 'val', 'train'))
    except ValueError:  # a config without data
        return ()


def picture_of(path: str | Path, reader: Reader) -> np.ndarray:
    """An image of a dataset as (H, W, 3) uint8 RGB, of the size that its labels have."""
    if not reader.steps:
        return mmcv.imread(str(path), channel_order='rgb')
    return as_picture(reader.read(path))


def _loaded(load: Callable[[dict[str, Any]], Any], path: str | Path) -> np.ndarray:
    """An image (H, W, C) by loading transforms, which give blue first; RGB if C is 3."""
    try:
        check_regular(path)
        image = np.asarray(load(dict(img_path=str(path), img_id=0))['img'])
    except Exception as error:  # each transform has its own
        raise UnreadableImageError(f'{path}: {describe(error)}') from error
    image = image[..., None] if image.ndim == 2 else image
    return image[..., ::-1] if image.shape[-1] == 3 else image


def _reads_rgb(step: Mapping[str, Any]) -> bool:
    """Whether a loading transform gives 8-bit colours, turned as shown: those of `read_image`."""
    usual = dict(color_type=('color',), imdecode_backend=('cv2', None), file_client_args=(None,))
    backend = (step.get('backend_args') or {}).get('backend', 'local')
    kept = all(step.get(key, values[0]) in values for key, values in usual.items())
    return type_name(step) == 'LoadImageFromFile' and kept and backend == 'local'


def _keeps_bits(step: Mapping[str, Any]) -> bool:
    kind = str(step.get('color_type', 'color'))
    return type_name(step) != 'LoadImageFromFile' or kind.startswith(('unchanged', 'anydepth'))


def loads_images(name: str) -> bool:
    """Whether a transform of this name loads an image."""
    return name.startswith('Load') and not any(other in name for other in ('Annot', 'Proposal'))


def deep_line(paths: Sequence[str | Path], reader: Reader) -> str:
    """A line on files of more than 8 bits that are read as 8-bit; empty without any."""
    if not reader.in_8_bits:
        return ''
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        bits = pool.map(bits_of, paths)
        deep = [(path, n) for path, n in zip(paths, bits, strict=True) if n > 8]
    for path, number in deep:
        try:
            pixels = reader.read(path)
        except UnreadableImageError:
            continue
        return (
            f'{len(deep)} of {len(paths)} images have {number} bits a channel and are read '
            f'as 8-bit: {path} as {pixels.min()} to {pixels.max()} of 255; a config whose '
            f'LoadImageFromFile has {DEEP_FIX} keeps all bits'
        )
    return ''
