"""The plan of an extraction: images in batches of one size, known before pixels are read."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from vit_backbones.images import Resize, UnreadableImageError, image_size
from vit_backbones.position import Grid
from vit_backbones.shards.contents import HeldFile

_AT_ONCE = 4096  # headers that wait for a thread: a task takes more memory than a path


class Item(NamedTuple):
    """An image to run, by its place among the inputs.

    Attributes:
        path: Its path, or the file itself if it is of a shard.
        shown: (H, W) as viewers show it.
        size: (H, W) at which the model gets it.
    """

    index: int
    path: str | Path | HeldFile
    shown: Grid
    size: Grid


class Plan(NamedTuple):
    """The images with a readable header by index, in batches, and reasons for the others by index.

    Each batch has images of one size; batches depend only on the inputs.
    """

    items: dict[int, Item]
    batches: list[list[Item]]
    unreadable: dict[int, str]


def make_plan(
    paths: Sequence[Path],
    resize: Resize,
    batch_size: int,
    num_workers: int = 0,
    track: Callable[[Iterable], Iterable] = iter,
    size_of: Callable[[Path], Grid] = image_size,
) -> Plan:
    """Read the headers of images and put images of one size into batches, the largest first.

    Nothing is padded: a batch holds one size. Too large images fail at the start, not after hours.
    `track` wraps the sizes of the images, for a progress bar; `size_of` reads one, (H, W).
    """
    items, unreadable, buckets = {}, {}, defaultdict(list)
    sizes = track(_sizes(paths, num_workers, partial(_size, size_of=size_of)))
    for index, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        if isinstance(size, str):
            unreadable[index] = size
            continue
        items[index] = Item(index, str(path), size, resize(size))
        buckets[items[index].size].append(items[index])
    largest_first = sorted(buckets, key=lambda size: (-size[0] * size[1], size))
    batches = [
        buckets[size][start : start + batch_size]
        for size in largest_first
        for start in range(0, len(buckets[size]), batch_size)
    ]
    return Plan(items, batches, unreadable)


def _sizes(
    paths: Sequence[Path], num_workers: int, size: Callable[[Path], Grid | str]
) -> Iterator[Grid | str]:
    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        for start in range(0, len(paths), _AT_ONCE):
            yield from pool.map(size, paths[start : start + _AT_ONCE])


def _size(path: Path, size_of: Callable[[Path], Grid]) -> Grid | str:
    try:
        str(path).encode()
        return size_of(path)
    except UnicodeEncodeError:
        return 'its name is not UTF-8'
    except UnreadableImageError as error:
        return reason_of(path, error)


def reason_of(path: str | Path | HeldFile, error: UnreadableImageError) -> str:
    """Why an image cannot be read, without its path."""
    return str(error).removeprefix(f'{path}: ')
