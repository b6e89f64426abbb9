"""Whether images keep the bits of their files, and have channels alike."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from vit_backbones.bits import bits_of
from vit_backbones.checks.findings import Finding, warning
from vit_backbones.checks.looks import Look
from vit_backbones.errors import some
from vit_backbones.loaders import DEEP_FIX

_FULL = 257  # 16-bit values of which each is a multiple have 8 bits in truth


class Pixels(NamedTuple):
    """An image as it was loaded.

    Attributes:
        deep: Bits of a channel in the file, and the values there and as loaded, each (low, high);
            `None` for a file of 8 bits, and for one that keeps its own.
    """

    path: str
    channels: int
    deep: tuple[int, tuple[float, float], tuple[float, float]] | None


def _pixels(loaded: dict[str, Any]) -> Pixels | None:
    image, path = loaded.get('img'), loaded.get('img_path')
    if not isinstance(image, np.ndarray) or not isinstance(path, str):
        return None
    channels, bits = image.shape[2] if image.ndim > 2 else 1, bits_of(path)
    whole = cv2.imread(path, cv2.IMREAD_UNCHANGED) if bits > 8 and image.max() <= 255 else None
    if whole is None or whole.max() == image.max() or not (whole % _FULL).any():
        return Pixels(path, channels, None)
    return Pixels(path, channels, (bits, _range(whole), _range(image)))


def _range(pixels: np.ndarray) -> tuple[float, float]:
    return pixels.min().item(), pixels.max().item()


def _findings(dataset: Any, answers: Sequence[Pixels | None], place: str) -> Iterator[Finding]:
    known = [each for each in answers if each is not None]
    deep = [each.deep for each in known if each.deep is not None]
    if deep:
        bits, given, read = zip(*deep, strict=True)
        names = [type(each).__name__ for each in dataset.pipeline.transforms]
        loader = next((name for name in names if name.startswith('Load')), 'its loader')
        yield warning(
            f'{place}: {len(deep)} of {len(known)} images are {max(bits)}-bit, values '
            f'{_span(given)}, and {loader} reads them as 8-bit: {_span(read)}: set {DEEP_FIX}'
        )
    counts = Counter(each.channels for each in known)
    if len(counts) > 1:
        rare = min(counts, key=counts.get)
        names = some(each.path for each in known if each.channels == rare)
        each = ', '.join(f'{counts[number]} of {number}' for number in sorted(counts))
        yield warning(
            f'{place}: images differ in channels ({each}; {rare}: {names}), which '
            f'most models refuse: save them '
            f"alike, or load them by color_type='color'"
        )


def _span(ranges: Sequence[tuple[float, float]]) -> str:
    return f'{min(low for low, _ in ranges):g} to {max(high for _, high in ranges):g}'


PIXELS = Look(_pixels, _findings)
