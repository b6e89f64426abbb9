"""Users' images: find them, read them, resize them, and go through many."""

import contextlib
import glob
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps

from vit_backbones.bits import check_regular
from vit_backbones.files import json_of, shortened, write_whole
from vit_backbones.position import Grid
from vit_backbones.terminal import track

SUFFIXES = frozenset('.bmp .gif .jpeg .jpg .png .ppm .pgm .tif .tiff .webp'.split())


class UnreadableImageError(ValueError):
    """An image that cannot be read; the message names it and the reason."""


def find_images(inputs: Sequence[str | Path]) -> list[Path]:
    """The images in folders, patterns and lists, each one once, in the order of `inputs`.

    Args:
        inputs: Images; folders, with subfolders but not hidden ones; glob patterns; `.txt` files
            with one path per line and COCO `.json` files, both with paths relative to the file's
            folder (images of a COCO file may also lie in `images/` beside it). Images of a folder
            or pattern are sorted.

    Raises:
        FileNotFoundError: If an input does not exist.
        ValueError: If one holds no images.
    """
    found = [path for each in inputs for path in _of_input(str(each))]
    return list(dict.fromkeys(found))


def _of_input(given: str) -> list[Path]:
    path = Path(given).expanduser()
    if path.is_dir():
        every = [p for p in sorted(path.rglob('*')) if p.suffix.lower() in SUFFIXES]
        hidden = [any(part[0] == '.' for part in p.relative_to(path).parts) for p in every]
        images = [p for p, skipped in zip(every, hidden, strict=True) if not skipped]
        if not images:
            raise ValueError(f'{given}: no images in this folder ({", ".join(sorted(SUFFIXES))})')
        return images
    if path.is_file():
        if path.suffix.lower() == '.txt':
            return list(_listed(path))
        return list(_of_coco(path)) if path.suffix.lower() == '.json' else [path]
    matches = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(given) else []
    images = [Path(p) for p in matches if Path(p).suffix.lower() in SUFFIXES]
    if not images:
        raise FileNotFoundError(f'{given}: no such image, folder, list or pattern')
    return images


def _listed(path: Path) -> Iterator[Path]:
    text = path.read_text(encoding='utf-8-sig')
    lines = [stripped for line in text.splitlines() if (stripped := line.strip())]
    if not lines:
        raise ValueError(f'{path}: an empty list; it wants one image path per line')
    return (path.parent / line for line in lines)


def _of_coco(path: Path) -> Iterator[Path]:
    try:
        names = [image['file_name'] for image in json_of(path.read_bytes(), path)['images']]
        beside, below = path.parent, path.parent / 'images'
        found = [(beside / name, below / name) for name in names]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f'{path}: no COCO file; it wants images with a file_name each') from None
    if not names:
        raise ValueError(f'{path}: a COCO file without images')
    is_below = not os.path.exists(found[0][0]) and below.is_dir()
    return (each[is_below] for each in found)


def image_size(path: str | Path | BinaryIO) -> tuple[int, int]:
    """(H, W) as shown, read only from the header; an `UnreadableImageError` if it is no image.

    `path` may be an open file whose text, `str(file)`, is its name.
    """
    with opened(path) as image:
        width, height = image.size
        # getexif() of PNG reads the whole file; the size of TIFF is already as shown
        exif = {} if image.format == 'TIFF' else Image.Image.getexif(image)
    sideways = exif.get(ExifTags.Base.Orientation, 1) >= 5  # 5 to 8 swap the sides
    return (width, height) if sideways else (height, width)


def read_image(path: str | Path | BinaryIO) -> np.ndarray:
    """An image (H, W, 3), uint8 RGB, otherwise as OpenCV's `IMREAD_COLOR` and mmcv read it.

    `path` may be an open file, as for `image_size`.
    It is turned as its EXIF says, without transparency, with the high byte of 16 bits, and grey as
    three equal channels. A file that ends too early is refused, not filled with grey.

    Raises:
        UnreadableImageError: If it cannot be read.
    """
    with opened(path) as image:
        return _rgb(image, path)


def rgb_of(image: Image.Image, name: str) -> np.ndarray:
    """An opened image as `read_image` gives it; errors have this name."""
    with _one_error(name):
        return _rgb(image, name)


def _rgb(image: Image.Image, path: str | Path) -> np.ndarray:
    turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith(('I', 'F')):
        return _from_deep(np.asarray(turned), path)
    return np.asarray(turned.convert('RGB'))


def _from_deep(pixels: np.ndarray, path: str | Path) -> np.ndarray:
    """Grey images of more than 8 bits."""
    if pixels.dtype.kind == 'f' or pixels.min() < 0 or pixels.max() > 65535:
        raise _unreadable(path, 'its values are not on 0-65535')
    return np.repeat((pixels.astype(np.int64) >> 8).astype(np.uint8)[..., None], 3, axis=-1)


@contextlib.contextmanager
def opened(path: str | Path | BinaryIO) -> Iterator[Image.Image]:
    """A file as an image; everything that is wrong with it becomes one error."""
    with _one_error(path):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            check_regular(path)
            image = Image.open(path)
        with image:
            yield image


@contextlib.contextmanager
def _one_error(path: str | Path) -> Iterator[None]:
    try:
        yield
    except UnreadableImageError:
        raise
    except FileNotFoundError:
        raise _unreadable(path, 'it does not exist') from None
    except Image.UnidentifiedImageError:
        raise _unreadable(path, 'no image, or a damaged one') from None
    except Exception as error:  # each format has its own for damaged files
        raise _unreadable(path, getattr(error, 'strerror', None) or error) from None


def _unreadable(path: str | Path, reason: object) -> UnreadableImageError:
    return UnreadableImageError(f'{path}: {" ".join(str(reason).split())}')


Resize = Callable[[Grid], Grid]


def resizing(sides: Sequence[int] | None, fixed: Grid | None, longest: int | None = None) -> Resize:
    """How the sizes of images change.

    Args:
        sides: (H, W), or one number for the shorter side, which keeps the ratio.
        fixed: The only (H, W) that a model takes; `None` if it takes any.
        longest: Longer side where both of them are `None`; by default sizes stay.
    """
    if sides is not None and (len(sides) not in (1, 2) or min(sides) < 1):
        raise ValueError(
            f'size=... takes the shorter side in pixels, or height and width, got '
            f'{" ".join(map(str, sides))}'
        )
    if fixed is not None:
        if sides is not None and (*sides, *sides)[:2] != fixed:
            raise ValueError(
                f'size={" ".join(map(str, sides))}: the model takes only images of '
                f'{fixed[0]}x{fixed[1]}; leave size=... out, or build the model for another size '
                f'with img_size=H W'
            )
        return lambda size: fixed
    if sides is None:
        return (lambda size: size) if longest is None else within(longest)
    if len(sides) == 2:
        return lambda size: (sides[0], sides[1])
    (side,) = sides
    return lambda size: tuple(max(side, round(each * side / min(size))) for each in size)


def within(side: int) -> Resize:
    """Resizing that makes the longer side `side`."""
    return lambda size: tuple(max(1, round(length * side / max(size))) for length in size)


def resized(pixels: np.ndarray, size: Grid) -> np.ndarray:
    """An image (H, W, C) at another size, (H', W', C), of the same type."""
    if pixels.shape[:2] == tuple(size):
        return pixels
    to = dict(size=tuple(size)[::-1], resample=Image.Resampling.BICUBIC)
    if pixels.dtype == np.uint8 and pixels.shape[-1] == 3:
        return np.asarray(Image.fromarray(pixels).resize(**to))
    bands = [Image.fromarray(each.astype(np.float32)) for each in np.moveaxis(pixels, -1, 0)]
    found = np.stack([np.asarray(band.resize(**to)) for band in bands], axis=-1)
    if pixels.dtype.kind in 'ui':
        limits = np.iinfo(pixels.dtype)
        found = found.round().clip(limits.min, limits.max)
    return found.astype(pixels.dtype)


def as_picture(pixels: np.ndarray) -> np.ndarray:
    """Any image (H, W, C) as (H, W, 3) uint8 RGB to look at.

    Values beyond 0-255 are stretched. Of more than three channels it shows the first three, which
    OpenCV gives with blue first.
    """
    if pixels.shape[-1] != 3:
        order = [2, 1, 0] if pixels.shape[-1] > 3 else [0, 0, 0]
        pixels = pixels[..., order]
    if pixels.dtype == np.uint8:
        return pixels
    values = np.nan_to_num(pixels.astype(np.float32))
    low, high = values.min(), values.max()
    if low < 0 or high > 255:
        values = 255 * ((values - low) / max(high - low, 1e-6))
    return values.round().astype(np.uint8)


class Item(NamedTuple):
    """One image."""

    path: Path
    file_name: str  # path below the folder that all images share
    name: str  # the same without suffix, to name files that are made from the image
    pixels: np.ndarray  # (H, W, C), as `read` gives it: (H, W, 3) uint8 RGB by default


class HeldItem(Item):
    """An image without a file: its path is only a name for messages."""

    __slots__ = ()


class ImageWalk:
    """Goes through images, more than once if wanted; `doing` is a word for the progress bar.

    `read` gives the pixels of a path. `unreadable` has a line for each image that could not be
    read, with the reason.
    """

    def __init__(
        self, paths: Sequence[Path], doing: str, read: Callable[..., np.ndarray] = read_image
    ) -> None:
        self.paths, self.doing, self._read = list(paths), doing, read
        self.unreadable: dict[Path, str] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Item]:
        """Each image that can be read, in order."""
        triples = list(zip(self.paths, *_names(self.paths), strict=True))
        for path, file_name, name in track(triples, self.doing):
            try:
                pixels = self._read(path)
            except UnreadableImageError as error:
                self.unreadable[path] = str(error)
                continue
            yield Item(path, file_name, name, pixels)

    def close(self, out: Path) -> str:
        """Write `unreadable.txt` into a folder if there are such images; gives a few words on it.

        A `ValueError` if no image at all could be read.
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
    """Paths below the shared folder; and the same without suffix, unless two become equal."""
    whole = [os.path.abspath(path) for path in paths]
    shared = os.path.commonpath([os.path.dirname(path) for path in whole])
    below = [os.path.relpath(path, shared) for path in whole]
    bare = [os.path.splitext(path)[0] for path in below]
    counts = Counter(bare)
    names = [b if counts[b] == 1 else path for b, path in zip(bare, below, strict=True)]
    return below, [os.path.join(*map(shortened, name.split(os.sep))) for name in names]
