"""TIFFs of other bands than 8-bit RGB: how they are read, their mean and deviation, in a config."""

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config

from vit_backbones.bits import Tiff, tiff_of
from vit_backbones.config.facts import model_chain, nodes, type_name
from vit_backbones.errors import counted, one_line, require, some
from vit_backbones.own_data.common import Bands, unreadable
from vit_backbones.terminal import progress

_SUFFIXES = ('.tif', '.tiff')
_RGB, _GREY = 2, (0, 1)
_WHOLE = dict(color_type='unchanged', to_float32=True)
# Transforms that change colours of 8-bit RGB
_FOR_RGB = ('PhotoMetricDistortion', 'CLAHE', 'AdjustGamma', 'RGB2Gray', 'YOLOXHSVRandomAug')
_DIGITS = 6


class _Moments(NamedTuple):
    """Number of pixels, and mean, squared deviations, least and largest value of each band.

    `holes` is the number of images with pixels without data.
    """

    number: int
    mean: np.ndarray
    squares: np.ndarray
    low: np.ndarray
    high: np.ndarray
    holes: int

    def joined(self, other: '_Moments') -> '_Moments':
        """Those of both; after Chan, Golub and LeVeque (1979), exact far from zero too."""
        number, step = self.number + other.number, other.mean - self.mean
        share = other.number / number
        squares = self.squares + other.squares + step**2 * self.number * share
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        holes = self.holes + other.holes
        return _Moments(number, self.mean + step * share, squares, low, high, holes)


def banded(path: Path) -> Tiff | None:
    """The header of a TIFF that is no picture of 8-bit colours or grey; `None` for others.

    Raises:
        ValueError: If it is damaged.
    """
    if path.suffix.lower() not in _SUFFIXES:
        return None
    try:
        tiff = tiff_of(path)
        if tiff is not None and None in tiff.size:
            raise ValueError('it says no size')
    except Exception as error:  # Pillow has many for broken files
        reason = getattr(error, 'strerror', None) or str(error) or 'it is damaged'
        raise unreadable(path, reason, 'mask') from error
    if tiff is None or (tiff.photometric not in (_RGB, *_GREY)):
        return None
    usual = {_RGB: 3}.get(tiff.photometric, 1)
    small = tiff.numbers in ('uint1', 'uint2', 'uint4', 'uint8')
    return None if small and tiff.bands == usual and tiff.pages == 1 else tiff


def bands_of(data: Path, train: Sequence[Path], val: Sequence[Path]) -> Bands | None:
    """The bands of images, measured on those to train on; `None` if all are 8-bit pictures.

    Raises:
        ImportError: If tifffile is missing where OpenCV reads them wrongly.
        ValueError: If they differ, or cannot be read.
    """
    every = [*train, *val]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        headers = list(pool.map(banded, every))
    if not any(headers):
        return None
    first = _alike(data, every, headers)
    loader = dict(_WHOLE)
    if not all(map(_is_for_opencv, headers)):
        loader['imdecode_backend'] = 'tifffile'
        require('tifffile', f'a TIFF of {first.bands} bands', 'tifffile', extra='tiff')
    total = _measured(train, headers, functools.partial(_moments, LoadImageFromFile(**loader)))
    std = np.sqrt(total.squares / total.number)
    flat = total.low == total.high
    return Bands(
        number=first.bands,
        numbers=first.numbers,
        loader=loader,
        mean=_rounded(total.mean),
        std=_rounded(np.where(flat, 1, std)),
        warnings=list(_odd_bands(data, total, len(train))),
    )


def _measured(
    paths: Sequence[Path], headers: Sequence[Tiff], read: Callable[[Path, Tiff], _Moments]
) -> _Moments:
    """The moments of all images."""
    with progress() as bar, ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        found = pool.map(read, paths, headers[: len(paths)])
        tracked = bar.track(found, len(paths), description='reading bands')
        return functools.reduce(_Moments.joined, tracked)


def _alike(data: Path, paths: Sequence[Path], headers: Sequence[Tiff | None]) -> Tiff:
    """The header of all, which have the same bands, pixel by pixel in one picture."""
    kinds = [
        f'{counted(each.bands, "band")} of {each.numbers}' if each else '8-bit RGB or grey'
        for each in headers
    ]
    counts = Counter(kinds)
    if len(counts) > 1:
        rare = min(counts, key=counts.get)
        names = some(path for path, kind in zip(paths, kinds, strict=True) if kind == rare)
        each = ', '.join(f'{number} of {kind}' for kind, number in counts.most_common())
        raise ValueError(f'the images of {str(data)!r} differ: {each} ({names}): write them alike')
    for path, each in zip(paths, headers, strict=True):
        if each.pages > 1:
            raise ValueError(
                f'{str(path)!r} has {each.pages} pages, and only the first would be read: write '
                f'its bands into one page'
            )
        if each.planar:
            raise ValueError(
                f'{str(path)!r} holds its {each.bands} bands one behind the other: write them '
                f'pixel by pixel (gdal_translate -co INTERLEAVE=PIXEL)'
            )
    return headers[0]


def _is_for_opencv(tiff: Tiff) -> bool:
    """Whether OpenCV reads all bands: it drops or mixes grey ones, and takes four at most."""
    rgb = tiff.photometric == _RGB and tiff.bands in (3, 4)
    return tiff.bands == 1 or (rgb and not any(tiff.extra))


def _moments(load: LoadImageFromFile, path: Path, tiff: Tiff) -> _Moments:
    try:
        image = load(dict(img_path=str(path)))['img']
    except Exception as error:  # each decoder has its own
        raise unreadable(path, one_line(error), 'mask') from error
    image = image if image.ndim == 3 else image[..., None]
    if image.shape != (*tiff.size, tiff.bands):
        raise ValueError(f'{str(path)!r} of {tiff.bands} bands is read as {image.shape}')
    bands = [_of_band(path, image[..., i].astype(float)) for i in range(tiff.bands)]
    mean, squares, low, high = np.array(bands).T
    holes = isinstance(tiff.nodata, str) and _holds(image, tiff.nodata)
    return _Moments(image[..., 0].size, mean, squares, low, high, int(holes))


def _of_band(path: Path, values: np.ndarray) -> tuple[float, float, float, float]:
    """Mean, squared deviations, least and largest value; one band at a time saves memory."""
    if not np.isfinite(values).all():
        number = int(np.count_nonzero(~np.isfinite(values)))
        raise ValueError(
            f'{str(path)!r} holds NaN or infinity in {counted(number, "pixel")} of a band: write '
            f'numbers there, and 255 into the mask'
        )
    mean = values.mean()
    return mean, ((values - mean) ** 2).sum(), values.min(), values.max()


def _holds(image: np.ndarray, nodata: str) -> bool:
    try:
        value = float(nodata.strip('\0 '))
    except ValueError:
        return False
    return bool((image == value).any())


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f'{value:.{_DIGITS}g}') for value in values]


def _odd_bands(data: Path, total: _Moments, number: int) -> Iterator[str]:
    flat = total.low == total.high
    if total.holes:
        yield (
            f'{data}: {total.holes} of {counted(number, "image")} to train on have pixels of their '
            f'nodata value, which counts as any other: write one near the rest there, and 255 into '
            f'the mask'
        )
    if flat.any():
        places = some((int(i) + 1 for i in np.flatnonzero(flat)), 8)
        yield (
            f'{data}: band {places} of {len(flat)} is {total.low[flat][0]:g} in all images to '
            f'train on, and teaches nothing: write them without it'
        )


def keeps_bands(tree: Any) -> bool:
    """Whether the pipelines below a config load images by a loader of their own, or whole."""
    loaders = [node for _, node, _ in nodes(tree) if type_name(node) == 'LoadImageFromFile']
    kinds = {str(node.get('color_type', 'color')) for node in loaders}
    return not kinds or any(kind.startswith(('unchanged', 'anydepth')) for kind in kinds)


def put_bands(cfg: Config, bands: Bands) -> list[str]:
    """Let a config read and learn these bands; gives lines on transforms that are left out.

    Raises:
        ValueError: If its pipelines normalise by themselves.
    """
    gone = set()
    for place, node, _ in nodes(cfg):
        if type_name(node) == 'Normalize':
            raise ValueError(f'{place} is Normalize, and bands are normalised by data_preprocessor')
        if type_name(node) == 'LoadImageFromFile':
            node.update(bands.loader)
        for key, value in node.items():
            if isinstance(value, list):
                kept = [each for each in value if not _is_for_rgb(each)]
                gone |= {type_name(each) for each in value if _is_for_rgb(each)}
                node[key] = kept
    swapped = bands.number == 3 and 'imdecode_backend' not in bands.loader  # OpenCV gives BGR
    order = slice(None, None, -1 if swapped else 1)
    cfg.model.data_preprocessor.update(
        mean=bands.mean[order], std=bands.std[order], bgr_to_rgb=swapped, rgb_to_bgr=False
    )
    model_chain(cfg.model)[-1]['in_channels'] = bands.number
    return [
        f'{name} is for 8-bit RGB and left out of the pipelines: these are {bands.shown}'
        for name in sorted(gone)
    ]


def _is_for_rgb(step: Any) -> bool:
    return isinstance(step, dict) and type_name(step) in _FOR_RGB
