"""Going over many images: progress, names for what is made of them, which could not be read."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.progress import track

from vit_backbones.files import write_whole
from vit_backbones.images import UnreadableImageError, read_image


class Item(NamedTuple):
    """One image.

    Attributes:
        path: Where it is.
        file_name: Path below the folder that all images share.
        name: The same for files that are made of it, without suffix.
        pixels: (H, W, 3) uint8, RGB.
    """

    path: Path
    file_name: str
    name: str
    pixels: np.ndarray


class ImageWalk:
    """Goes over images, as often as is wanted, and remembers those that cannot be read.

    Args:
        paths: Of the images.
        doing: What happens to them, for the progress bar.

    Attributes:
        unreadable: A line for each image that could not be read, with the reason.
    """

    def __init__(self, paths: Sequence[Path], doing: str) -> None:
        self.paths, self.doing = list(paths), doing
        self.unreadable: dict[Path, str] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Item]:
        """Each image that can be read, in order."""
        triples = list(zip(self.paths, *_names(self.paths), strict=True))
        for path, file_name, name in track(triples, description=self.doing):
            try:
                pixels = read_image(path)
            except UnreadableImageError as error:
                self.unreadable[path] = str(error)
                continue
            yield Item(path, file_name, name, pixels)

    def close(self, out: Path) -> str:
        """Write `unreadable.txt` into a folder, if there are such images.

        Returns:
            What the closing line says of them.

        Raises:
            ValueError: If no image at all could be read.
        """
        listed, lines = out / 'unreadable.txt', list(self.unreadable.values())
        if len(lines) == len(self.paths):
            raise ValueError(f'none of {len(lines)} images could be read: {lines[0]}')
        if not lines:
            listed.unlink(missing_ok=True)  # of an earlier run
            return ''
        write_whole(listed, ''.join(f'{line}\n' for line in lines).encode())
        return f' · {len(lines)} unreadable, see {listed}'


def _names(paths: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Paths below the folder that all share, and without suffix where none become equal."""
    whole = [os.path.abspath(path) for path in paths]
    shared = os.path.commonpath([os.path.dirname(path) for path in whole])
    below = [os.path.relpath(path, shared) for path in whole]
    bare = [os.path.splitext(path)[0] for path in below]
    counts = Counter(bare)
    return below, [b if counts[b] == 1 else path for b, path in zip(bare, below, strict=True)]
