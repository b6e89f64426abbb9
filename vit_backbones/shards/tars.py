"""Images in tar files as WebDataset writes them, read in their order and never unpacked.

A sample's key is its path up to the first dot of its name, the rest is the extension:
https://github.com/webdataset/webdataset. Links, devices and sparse members are not followed.
"""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vit_backbones.errors import one_line, some
from vit_backbones.images import SUFFIXES
from vit_backbones.shards.contents import LARGEST, HeldFile, Sample, ShardError

_BLOCK, _CHUNK = 512, 2**20  # bytes


def tar_samples(path: Path, extension: str | None = None) -> Iterator[Sample]:
    """The images of a tar file, in its order, each key once.

    Args:
        path: An uncompressed tar file.
        extension: Of the images, such as `seg.png`; by default that of any image.

    Raises:
        ShardError: If it is damaged, ends too early or holds no such image.
    """
    first: dict[str, str] = {}
    others: dict[str, None] = {}
    with open(path, 'rb') as file:
        for member in _members(file):
            key, found = key_of(member.name)
            if not _wanted(member.name, found, extension):
                others[f'.{found}'] = None
                continue
            yield Sample(key, _content(file, member, first.get(key)))
            first.setdefault(key, member.name)
    if not first:
        wanted = f'.{extension}' if extension else ', '.join(sorted(SUFFIXES))
        raise ShardError(f'no images in it ({wanted}); it holds {some(others)}')


def key_of(name: str) -> tuple[str, str]:
    """The key and the extension of a member."""
    folder, base = os.path.split(name)
    stem, _, extension = base.partition('.')
    return os.path.join(folder, stem), extension


def _wanted(name: str, found: str, extension: str | None) -> bool:
    if os.path.basename(name).startswith('.'):  # macOS writes ._NAME beside each file
        return False
    if extension is None:
        return f'.{found.lower().rpartition(".")[2]}' in SUFFIXES
    return found.lower() == extension.lower().lstrip('.')


def _members(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """All members but folders; the position in `file` is free to change meanwhile."""
    try:
        # headers too may claim to be larger than the memory
        with _Bounded(file.name) as headers, tarfile.open(fileobj=headers, mode='r:') as tar:
            last = -1
            while (member := tar.next()) is not None:
                if member.offset <= last:
                    raise ShardError('damaged: its members lie in a circle')
                last = member.offset
                tar.members.clear()  # a list of all members grows with the file
                if not member.isdir():
                    yield member
            _check_end(file, tar.offset)
    except tarfile.ReadError as error:
        if 'end of data' in str(error):
            raise ShardError('it ends too early') from None
        raise ShardError(f'no tar file, or a compressed or damaged one ({_why(error)})') from None
    except (tarfile.TarError, EOFError, OverflowError, UnicodeError) as error:
        raise ShardError(f'damaged: {one_line(error)}') from None


def _why(error: Exception) -> str:
    return one_line(error).split(' - method')[0]


def _check_end(file: BinaryIO, end: int) -> None:
    """Refuse a file without the empty block that ends it; `tarfile` stops at a damaged one too."""
    file.seek(end)
    found = file.read(_BLOCK)
    if len(found) < _BLOCK:
        raise ShardError('it ends too early')
    while found:
        if found.strip(b'\0'):
            raise ShardError(f'damaged, or two tar files in one: more data behind byte {end}')
        found = file.read(_CHUNK)


class _Bounded:
    """A file that reads no more at once than an image may take."""

    def __init__(self, path: str) -> None:
        self._file = open(path, 'rb')
        self.name, self.mode = path, 'rb'
        self.seek, self.tell = self._file.seek, self._file.tell

    def __enter__(self) -> '_Bounded':
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= LARGEST:
            raise ShardError(f'damaged: a header of {size} bytes')
        return self._file.read(size)


def _content(file: BinaryIO, member: tarfile.TarInfo, before: str | None) -> HeldFile | str:
    reason = _reason(member, before)
    if reason:
        return reason
    file.seek(member.offset_data)
    content = file.read(member.size)
    if len(content) < member.size:
        raise ShardError('it ends too early')
    return HeldFile(content, member.name)


def _reason(member: tarfile.TarInfo, before: str | None) -> str | None:
    """Why a member is no image; `before` is an earlier one with its key."""
    if before is not None:
        return f'{member.name}: its key stands for {before} already'
    if member.issym() or member.islnk():
        return 'a link, not followed'
    if not member.isreg() or member.issparse():
        return 'no plain file'
    if member.size > LARGEST:
        return f'{member.size} bytes are no image: the most is {LARGEST}'
    return None
