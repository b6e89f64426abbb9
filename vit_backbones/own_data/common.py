"""Own data as configs name them, and steps that COCO files and folders of masks share."""

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from vit_backbones.errors import counted

_HELD_OUT = 5  # every fifth image, beginning with the first, is held out
T = TypeVar('T')


class OwnData(NamedTuple):
    """Data as a config names them; splits are `'train'` and `'val'`."""

    source: Path
    classes: list[str]  # in the order of the labels
    palette: list[tuple[int, int, int]]  # RGB on 0-255, per class
    datasets: dict[str, dict[str, Any]]  # keys of the config's datasets, by split
    files: dict[Path, bytes]  # those that `datasets` name and that are not there yet
    num_images: dict[str, int]  # to train and to validate on
    num_listed: dict[str, int]  # images, of which some may be left out
    held_out: bool  # 'val' was taken out of 'train'
    same_size: bool  # of all images to validate on
    objects: tuple[int, int] | None = None  # to train on, and listed
    warnings: Sequence[str] = ()  # lines on what is left out, mended, or may be wrong

    def summary(self) -> str:
        """One line with the data, the number of images and objects, and the classes."""
        numbers = {split: _share(self.num_images[split], n) for split, n in self.num_listed.items()}
        objects = f' and {_share(*self.objects)} objects' if self.objects else ''
        held = ' (every fifth, held out)' if self.held_out else ''
        named = ', '.join(self.classes[:5]) + (', ...' if len(self.classes) > 5 else '')
        return (
            f'data: {self.source}, {numbers["train"]} images{objects} to train on, '
            f'{numbers["val"]} to validate on{held}; '
            f'{counted(len(self.classes), "class")}: {named}'
        )


def _share(part: int, whole: int) -> str:
    return str(whole) if part == whole else f'{part} of {whole}'


def hold_out(items: Sequence[T]) -> tuple[list[T], list[T]]:
    """Split items, one per image, into those to train on and every fifth to validate on."""
    if len(items) < 2:
        raise ValueError('1 image is too few: it is held out to validate on, and none is left')
    kept = [item for i, item in enumerate(items) if i % _HELD_OUT]
    return kept, list(items[::_HELD_OUT])


def colours(number: int) -> list[tuple[int, int, int]]:
    """Colours that are easy to distinguish, RGB on 0-255; always the same."""
    hues = (0.618 * i % 1 for i in range(number))  # the golden section spreads any number of them
    return [
        tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.8 - 0.3 * (i % 2), 0.9))
        for i, hue in enumerate(hues)
    ]
