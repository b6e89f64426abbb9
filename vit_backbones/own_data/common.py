"""Own data as configs name them, and steps that COCO files and folders of masks share."""

import colorsys
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from vit_backbones.bits import check_regular
from vit_backbones.errors import counted
from vit_backbones.images import UnreadableImageError, image_size
from vit_backbones.position import Grid
from vit_backbones.terminal import progress

# Names of the folders of a split
SPLITS = {'train': ('train', 'training'), 'val': ('val', 'valid', 'validation')}
_HELD_OUT = 5  # every fifth image, beginning with the first, is held out
T = TypeVar('T')


class Bands(NamedTuple):
    """The bands of images as their loader gives them.

    Attributes:
        number: Of bands.
        numbers: Their type, as NumPy calls it.
        loader: Arguments of `LoadImageFromFile` that keep them.
        mean: Of each band, over all pixels to train on.
        std: Likewise.
        warnings: Lines on what is odd.
    """

    number: int
    numbers: str
    loader: dict[str, Any]
    mean: list[float]
    std: list[float]
    warnings: Sequence[str] = ()

    @property
    def shown(self) -> str:
        """In a few words."""
        return f'{counted(self.number, "band")} of {self.numbers}'


class Labels(NamedTuple):
    """Objects of a split: boxes, maybe masks.

    Attributes:
        path: The file or folder that messages name.
        read: Gives them as a COCO file has them.
        place: Gives the absolute folder of the images of what `read` gave.
        kind: Of the format, empty for COCO.
        warnings: Lines on what is odd.
    """

    path: Path
    read: Callable[[], dict[str, Any]]
    place: Callable[[dict[str, Any]], Path]
    kind: str = ''
    warnings: Sequence[str] = ()


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
    kind: str = ''  # format of the source, where there are several
    bands: Bands | None = None  # of the images, where they are no 8-bit RGB
    unused: Sequence[str] = ()  # labels of other kinds in the folder, with their kind

    def summary(self) -> str:
        """One line with the data, the number of images and objects, and the classes."""
        numbers = {split: _share(self.num_images[split], n) for split, n in self.num_listed.items()}
        objects = f' and {_share(*self.objects)} objects' if self.objects else ''
        held = ' (every fifth, held out)' if self.held_out else ''
        bands = f'; {self.bands.shown}' if self.bands else ''
        unused = ''.join(f'; {each} is not used' for each in self.unused)
        kind = f' ({self.kind})' if self.kind else ''
        named = ', '.join(self.classes[:5]) + (', ...' if len(self.classes) > 5 else '')
        return (
            f'data: {self.source}{kind}, {numbers["train"]} images{objects} to train on, '
            f'{numbers["val"]} to validate on{held}; '
            f'{counted(len(self.classes), "class")}: {named}{bands}{unused}'
        )


def _share(part: int, whole: int) -> str:
    return str(whole) if part == whole else f'{part} of {whole}'


def hold_out(items: Sequence[T]) -> tuple[list[T], list[T]]:
    """Split items, one per image, into those to train on and every fifth to validate on."""
    if len(items) < 2:
        raise ValueError('1 image is too few: it is held out to validate on, and none is left')
    kept = [item for i, item in enumerate(items) if i % _HELD_OUT]
    return kept, list(items[::_HELD_OUT])


def sizes_of(paths: Sequence[Path]) -> list[Grid | None]:
    """(H, W) of images, turned as their EXIF says; `None` for those that cannot be read."""
    with progress() as bar, ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        sizes = pool.map(_shown_size, paths)
        return list(bar.track(sizes, len(paths), description='reading sizes'))


def unreadable(path: Path, reason: str, partner: str) -> ValueError:
    """The error of an image or a mask that cannot be read; the other of both is its partner."""
    return ValueError(
        f'{str(path)!r} cannot be read ({reason}): write it anew, or remove it and its {partner}'
    )


def given_sizes(source: Path, images: Sequence[Path]) -> list[Grid]:
    """(H, W) of images, turned as their EXIF says, all of which `source` needs."""
    sizes = sizes_of(images)
    if bad := [path for path, size in zip(images, sizes, strict=True) if size is None]:
        raise ValueError(
            f'{len(bad)} of {counted(len(images), "image")} of {str(source)!r} cannot be read, the '
            f'first is {str(bad[0])!r}: write them anew, or remove them and their labels'
        )
    return sizes


def placed(images: Sequence[Path], sizes: Sequence[Grid]) -> tuple[dict[str, Any], Path]:
    """The images of a COCO file, numbered from 1, and the one folder that all of them are in."""
    folder = Path(os.path.commonpath([path.parent for path in images]))
    entries = [
        dict(id=i, file_name=path.relative_to(folder).as_posix(), height=size[0], width=size[1])
        for i, (path, size) in enumerate(zip(images, sizes, strict=True), 1)
    ]
    return dict(images=entries), folder


def text_lines(path: Path, *, blank: bool = False) -> list[str]:
    """The stripped lines of a text, by default without blank ones."""
    try:
        check_regular(path)
        lines = path.read_text(encoding='utf-8-sig').splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f'{str(path)!r} is no text in UTF-8 ({error}): save it so') from error
    stripped = [line.strip() for line in lines]
    return stripped if blank else [line for line in stripped if line]


def _shown_size(path: Path) -> Grid | None:
    try:
        return image_size(path)
    except UnreadableImageError:
        return None  # the training leaves out a few


def colours(number: int) -> list[tuple[int, int, int]]:
    """Colours that are easy to distinguish, RGB on 0-255; always the same."""
    hues = (0.618 * i % 1 for i in range(number))  # the golden section spreads any number of them
    return [
        tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.8 - 0.3 * (i % 2), 0.9))
        for i, hue in enumerate(hues)
    ]
