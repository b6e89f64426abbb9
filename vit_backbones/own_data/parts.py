"""What both kinds of data have in common."""

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

_HELD_OUT = 5  # every so many images, one is held out
T = TypeVar('T')


class OwnData(NamedTuple):
    """Data in the words of a config.

    Attributes:
        classes: Their names, in the order of their labels.
        palette: A colour each, RGB on 0-255.
        datasets: For `'train'` and `'val'`, what the config's data sets shall say.
        files: Contents of the files that `datasets` name and that are not there yet.
        same_size: Whether all images to validate on have one size.
        summary: One line for the terminal.
    """

    classes: list[str]
    palette: list[tuple[int, int, int]]
    datasets: dict[str, dict[str, Any]]
    files: dict[Path, bytes]
    same_size: bool
    summary: str


def hold_out(items: Sequence[T]) -> tuple[list[T], list[T]]:
    """Split what is sorted by name: every fifth, beginning with the first, is to validate on.

    Args:
        items: One an image.

    Returns:
        Those to train on, and those to validate on.

    Raises:
        ValueError: If none is left to train on.
    """
    if len(items) < 2:
        raise ValueError('1 image is too few: it is held out to validate on, and none is left')
    kept = [item for i, item in enumerate(items) if i % _HELD_OUT]
    return kept, list(items[::_HELD_OUT])


def colours(number: int) -> list[tuple[int, int, int]]:
    """Colours that are easy to tell apart, RGB on 0-255; always the same."""
    hues = (0.618 * i % 1 for i in range(number))  # the golden section spreads any number of them
    return [
        tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.8 - 0.3 * (i % 2), 0.9))
        for i, hue in enumerate(hues)
    ]


def summarize(
    data: Path, num_train: int, num_val: int, classes: Sequence[str], *, held_out: bool
) -> str:
    """The line that tells which data are used."""
    named = ', '.join(classes[:5]) + (', ...' if len(classes) > 5 else '')
    held = ' (every fifth, held out)' if held_out else ''
    return (
        f'data: {data}, {num_train} images to train on, {num_val} to validate on{held}; '
        f'{counted(len(classes), "class")}: {named}'
    )


def counted(number: int, noun: str) -> str:
    """`1 image`, `2 images`, `3 classes`."""
    plural = 'es' if noun.endswith('s') else 's'
    return f'{number} {noun}{plural * (number != 1)}'
