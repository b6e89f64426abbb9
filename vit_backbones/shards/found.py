"""Find shards, and images as groups of files that are treated as shards."""

import glob
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vit_backbones.errors import counted, shown
from vit_backbones.files import mark, shortened
from vit_backbones.images import SUFFIXES, find_images
from vit_backbones.shards.contents import SETTINGS, HeldFile, Sample, ShardError
from vit_backbones.shards.image_tables import table_samples
from vit_backbones.shards.tars import tar_samples

READERS = {'.tar': tar_samples, '.parquet': table_samples}
_COMPRESSED = ('.gz', '.tgz', '.bz2', '.xz', '.zst')
_IMAGES = 1000  # of a group of files
_MOST = 10_000_000  # names of one pattern
_RANGE = re.compile(r'\{(\d+)\.\.(\d+)\}')


class Shard(NamedTuple):
    """Images that are computed and written together.

    Attributes:
        name: Of its output, without a suffix; others have another name.
        paths: One tar or Parquet file, or files of images.
    """

    name: str
    paths: Sequence[Path]

    @property
    def source(self) -> Path | None:
        """The file that holds the images; `None` for files of images."""
        return self.paths[0] if is_shard(self.paths[0]) else None

    def samples(self, image_key: str | None = None) -> Iterator[Sample]:
        """Its images in order; a `ShardError` without its name if it cannot be read."""
        if self.source is None:
            return (Sample(str(path), path) for path in self.paths)
        return _samples(self.source, image_key)

    def stamp(self) -> dict[str, Any]:
        """Names, sizes and times of its files, to know them again."""
        known = [_known(path) for path in self.paths]
        if self.source is not None:
            return dict(file=self.source.name, bytes=known[0][0], time=known[0][1])
        text = '\n'.join(f'{path!r} {each}' for path, each in zip(self.paths, known, strict=True))
        return dict(files=len(known), mark=mark(text))


def _known(path: Path) -> tuple[int, int]:
    """Bytes, and time in nanoseconds; zeros for a file that cannot be found."""
    try:
        found = path.stat()
    except (OSError, ValueError):  # of a name with NUL
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _samples(path: Path, image_key: str | None) -> Iterator[Sample]:
    try:
        yield from READERS[path.suffix.lower()](path, image_key)
    except OSError as error:
        raise ShardError(error.strerror or str(error)) from None


def find_shards(inputs: Sequence[str | Path]) -> list[Shard]:
    """The shards in files, folders and patterns; files of images in groups of 1000.

    Args:
        inputs: As `find_images` takes them, with `.tar` and `.parquet` files too, and patterns
            such as `a/{000..099}.tar`. A folder holds either shards or images; data sets of
            embeddings in it are passed over.

    Raises:
        FileNotFoundError: If an input does not exist.
        ValueError: If one holds no images, or images beside shards.
    """
    every = [*itertools.chain.from_iterable(map(_expanded, map(str, inputs)))]
    found = {given: _shards_of(given) for given in every}
    images = find_images([given for given, shards in found.items() if not shards])
    shards = [*itertools.chain.from_iterable(found.values()), *filter(is_shard, images)]
    files = list(dict.fromkeys(shards))
    paths = ([path] for path in files)
    return [
        *map(Shard, _names(files), paths),
        *groups([path for path in images if not is_shard(path)]),
    ]


def is_shard(path: Path) -> bool:
    """Whether a name is that of a shard."""
    return path.suffix.lower() in READERS


def groups(images: Sequence[Path]) -> list[Shard]:
    """Files of images in groups, in their order."""
    starts = range(0, len(images), _IMAGES)
    return [Shard(f'images-{i:05}', images[s : s + _IMAGES]) for i, s in enumerate(starts)]


def _expanded(given: str) -> Iterator[str]:
    """Each name of a pattern such as `{000..099}`, with as many digits as its first number."""
    found = _RANGE.search(given)
    if not found:
        yield given
        return
    first, last = map(int, found.groups())
    if not first <= last < first + _MOST:
        raise ValueError(f'{given}: it wants a range such as {{000..099}}, upwards')
    for number in range(first, last + 1):
        digits = f'{number:0{len(found[1])}}'
        yield from _expanded(given[: found.start()] + digits + given[found.end() :])


def _shards_of(given: str) -> list[Path]:
    path = Path(given).expanduser()
    if path.is_dir():
        every = [p for p in sorted(path.rglob('*')) if not _hidden(p.relative_to(path))]
        own = {parent for parent in {p.parent for p in every} if (parent / SETTINGS).exists()}
        return _of_one_kind([p for p in every if p.parent not in own], given)
    if glob.has_magic(given) and not path.exists():
        return _of_one_kind([Path(p) for p in sorted(glob.glob(str(path), recursive=True))], given)
    if path.suffix.lower() in _COMPRESSED:
        raise ValueError(f'{given}: shards are read uncompressed: unpack it to a .tar file first')
    if is_shard(path) and not path.is_file():
        raise FileNotFoundError(f'{given}: no such shard')
    return [path] if is_shard(path) else []


def _of_one_kind(every: Sequence[Path], given: str) -> list[Path]:
    shards = [path for path in every if is_shard(path)]
    images = [path for path in every if path.suffix.lower() in SUFFIXES]
    if shards and images:
        raise ValueError(
            f'{given}: {counted(len(shards), "shard")} ({shown(shards[0].name)}) and '
            f'{counted(len(images), "image")} ({shown(images[0].name)}): name one of the kinds, '
            f'such as {shards[0].parent}/*{shards[0].suffix}'
        )
    return shards


def _hidden(path: Path) -> bool:
    return any(part[0] in '._' for part in path.parts)


def _names(files: Sequence[Path]) -> list[str]:
    """Stems; with a mark of the path where two files have the same, or readers would hide it."""
    counts = Counter(path.stem for path in files)
    return [
        shortened(path.stem)
        if counts[path.stem] == 1 and path.stem[0] not in '._'
        else shortened(f'shard-{mark(str(path))[:8]}-{path.stem}')
        for path in files
    ]


def held_at(place: str) -> HeldFile | Path | None:
    """The image at `SHARD/KEY`, where a shard is a file; `None` if there is none."""
    for parent in Path(place).parents:
        if is_shard(parent) and parent.is_file():
            return _held(parent, os.path.relpath(place, parent))
    return None


def _held(shard: Path, key: str) -> HeldFile | Path | None:
    try:
        found = (sample.image for sample in _samples(shard, None) if sample.key == key)
        image = next(found, None)
    except ShardError:
        return None
    return None if isinstance(image, str) else image
