"""Finished features on the disk, so that a killed run continues where it stopped."""

import fcntl
import functools
import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from vit_backbones.errors import one_line
from vit_backbones.files import json_of, write_whole

_JOB = 'job.json'
_OPEN = 256  # parts that are open at once; systems allow 1024 files
_SECONDS = 15.0  # between parts
_BYTES = 256 * 2**20  # of a part


class Parts:
    """A folder of files, each with the features of some images of a job, known by its fingerprint.

    A part is a safetensors file with one array per image and output, `INDEX.NUMBER`; its metadata
    list the images that could not be read. Its name is the index of one of its images, or in a
    `shared` folder, which runs over other images use too, a hash of the indices of all of them.
    """

    def __init__(self, folder: Path, job: str, *, shared: bool = False) -> None:
        self.folder, self.job, self.shared = folder, job, shared
        self.draft = folder / '.draft'
        self._where: dict[int, Path] = {}
        self._open = functools.lru_cache(_OPEN)(_opened)
        self._clear()

    def _clear(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}
        self._unreadable: dict[int, str] = {}
        self._bytes, self._since = 0, time.monotonic()

    def start(self, out: Path, overwrite: bool) -> None:
        """Make the folder for `out`, or take over the parts of an earlier run of the same job.

        `overwrite` deletes those of another job, which are refused otherwise.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / 'lock').open('w')
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f'{out}: another run is at work on it') from None
        record = self.folder / _JOB
        job = json_of(record.read_bytes(), record, dict).get('job') if record.exists() else None
        if job not in (None, self.job) and not overwrite:
            raise ValueError(
                f'{self.folder} holds an unfinished run with other images, weights or options: '
                f'repeat that command to finish it, or start anew with overwrite=True'
            )
        # drafts of killed writes, or everything: a run with overwrite may have been killed here
        for path in self.folder.glob('.*' if job == self.job else '*.*'):
            path.unlink()
        write_whole(record, json.dumps({'job': self.job}).encode())

    def add(self, arrays: dict[str, np.ndarray], unreadable: dict[int, str]) -> None:
        """Add features by `INDEX.NUMBER`, and reasons by index; now and then writes them."""
        self._unreadable |= unreadable
        self._arrays |= arrays  # all at once: an interrupted batch leaves nothing
        self._bytes += sum(array.nbytes for array in arrays.values())
        if self._bytes >= _BYTES or time.monotonic() - self._since >= _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write all that was added since the last part."""
        if self._arrays or self._unreadable:
            self.write(self._arrays, self._unreadable)
        self._clear()

    def write(self, arrays: Mapping[str, np.ndarray], unreadable: dict[int, str]) -> None:
        """Write one part, with arguments as for `add`."""
        held = sorted({*map(_index, arrays), *unreadable})
        name = hashlib.sha256(repr(held).encode()).hexdigest() if self.shared else f'{held[0]:08d}'
        metadata = {'unreadable': json.dumps(unreadable)}
        content = save({key: np.ascontiguousarray(a) for key, a in arrays.items()}, metadata)
        write_whole(self.folder / f'{name}.safetensors', content)

    def read(self) -> dict[int, str]:
        """Scan the folder for `indices`; gives the reasons for unreadable images by index."""
        unreadable: dict[int, str] = {}
        self._where.clear()
        for path in sorted(self.folder.glob('*.safetensors')):
            part = _opened(path)
            try:
                reasons = json_of((part.metadata() or {})['unreadable'], path, dict)
                unreadable |= {int(index): str(why) for index, why in reasons.items()}
                self._where |= dict.fromkeys(map(_index, part.keys()), path)
            except (KeyError, ValueError) as error:
                raise _damaged(path, error) from None
        return unreadable

    @property
    def indices(self) -> list[int]:
        """The finished images, in the order of the inputs."""
        return sorted(self._where)

    def arrays(self, index: int, count: int) -> list[np.ndarray]:
        """The arrays of an image, one per output."""
        part = self._open(self._where[index])
        return [part.get_tensor(f'{index}.{number}') for number in range(count)]

    def shapes(self, index: int, count: int) -> list[list[int]]:
        """The shapes of these arrays, without reading them."""
        part = self._open(self._where[index])
        return [part.get_slice(f'{index}.{number}').get_shape() for number in range(count)]

    def remove(self) -> None:
        """Remove the folder."""
        self._open.cache_clear()
        shutil.rmtree(self.folder)


def _index(key: str) -> int:
    return int(key.split('.')[0])


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework='numpy')
    except SafetensorError as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f'{path} is damaged ({one_line(error)}): remove it and repeat this')
