"""Names of classes in a `classes.txt`, one a line in the order of their numbers."""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from vit_backbones.own_data.common import text_lines

CLASSES = ('classes.txt', 'labels/classes.txt')  # of LabelImg and Label Studio
_COCO_FOLDER = 'annotations'


def class_names(path: Path) -> list[str]:
    """The names of a file; a `ValueError` if a line before the last is blank, or a name is twice.

    A class without a name would shift those behind it, and nothing tells equal names apart.
    """
    names = text_lines(path, blank=True)
    while names and not names[-1]:
        names.pop()
    for number, name in enumerate(names, 1):
        if not name:
            raise ValueError(
                f'{str(path)!r}: line {number} is blank, and the classes below it would have '
                f'other numbers: name a class there, or remove the line'
            )
        if (first := names.index(name) + 1) < number:
            raise ValueError(
                f'{str(path)!r}: lines {first} and {number} are both {name!r}: give each class a '
                f'name of its own'
            )
    return names


def check_classes(source: Path, labels: Path, classes: Sequence[str]) -> None:
    """Refuse a `classes.txt` that says otherwise beside labels.

    Args:
        source: What gives the classes; it is for the message.
        labels: A file or folder of labels.
        classes: Their names, in order.
    """
    folder = labels if labels.is_dir() else labels.parent
    folders = [folder, folder.parent] if folder.name == _COCO_FOLDER else [folder]
    for listed in (each / name for each in folders for name in CLASSES):
        if listed.is_file() and (found := class_names(listed)) != list(classes):
            first, other = next((a, b) for a, b in zip_longest(found, classes) if a != b)
            raise ValueError(
                f'{str(listed)!r} and {str(source)!r} name other classes, {len(found)} and '
                f'{len(classes)}; the first to differ are {first!r} and {other!r}: make them '
                f'agree, or remove the former'
            )
