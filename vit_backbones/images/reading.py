"""Images of users: where they are, and reading them."""

import contextlib
import glob
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = frozenset('.bmp .gif .jpeg .jpg .png .ppm .pgm .tif .tiff .webp'.split())


class UnreadableImageError(ValueError):
    """An image that cannot be read; the message names it and the reason."""


def find_images(inputs: Sequence[str | Path]) -> list[Path]:
    """The images that a command line names.

    Args:
        inputs: Images; folders, with those below; glob patterns; `.txt` files with a path a line
            and COCO `.json` files, both with paths relative to the file's folder (those of a COCO
            file may also lie in `images/` beside it).

    Returns:
        Each one once, in the order of `inputs`, those of a folder or pattern sorted.

    Raises:
        FileNotFoundError: If an input does not exist.
        ValueError: If one holds no images.
    """
    found = [path for each in inputs for path in _of_input(str(each))]
    return list(dict.fromkeys(found))


def _of_input(given: str) -> list[Path]:
    path = Path(given).expanduser()
    if path.is_dir():
        images = sorted(p for p in path.rglob('*') if p.suffix.lower() in SUFFIXES)
        images = [p for p in images if not p.name.startswith('.')]
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
    lines = [line.strip() for line in path.read_text(encoding='utf-8').splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        raise ValueError(f'{path}: an empty list; it wants the path of an image a line')
    return (path.parent / line for line in lines)


def _of_coco(path: Path) -> Iterator[Path]:
    try:
        names = [image['file_name'] for image in json.loads(path.read_text())['images']]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f'{path}: no COCO file; it wants images with a file_name each') from None
    if not names:
        raise ValueError(f'{path}: a COCO file without images')
    beside, below = path.parent, path.parent / 'images'
    root = below if not (beside / names[0]).exists() and below.is_dir() else beside
    return (root / name for name in names)


def image_size(path: str | Path) -> tuple[int, int]:
    """(H, W) as shown, from the file's header alone.

    Raises:
        UnreadableImageError: If it is no image.
    """
    with _opened(path) as image:
        width, height = image.size
        sideways = image.getexif().get(0x0112, 1) >= 5  # orientations 5 to 8 swap the sides
    return (width, height) if sideways else (height, width)


def read_image(path: str | Path) -> np.ndarray:
    """An image as OpenCV's `IMREAD_COLOR`, and so mmcv's pipelines, see it, but in RGB.

    Turned as its EXIF says, without transparency, the high byte of 16 bits, grey as three equal
    channels; a file that ends too early is refused instead of filled with grey.

    Args:
        path: File.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        UnreadableImageError: If it cannot be read.
    """
    with _opened(path) as image:
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
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """A file as an image; whatever is wrong with it, also while it is read, is one error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            image = Image.open(path)
        with image:
            yield image
    except UnreadableImageError:
        raise
    except FileNotFoundError:
        raise _unreadable(path, 'it does not exist') from None
    except Image.UnidentifiedImageError:
        raise _unreadable(path, 'no image, or a damaged one') from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, getattr(error, 'strerror', None) or error) from None


def _unreadable(path: str | Path, reason: object) -> UnreadableImageError:
    return UnreadableImageError(f'{path}: {" ".join(str(reason).split())}')
