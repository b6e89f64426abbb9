"""Finished batches on the disk, so that a killed extraction goes on where it was."""

import fcntl
import functools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from vit_backbones.files import write_whole

_JOB = 'job.json'
_OPEN = 256  # parts that are open at once; systems allow 1024 files


class Parts:
    """The folder `.NAME.parts` beside an output: files with the features of some images each.

    A part is a safetensors file with one array an image and output, `INDEX.NUMBER`; its metadata
    tell which images could not be read. It bears the number of one of its images.

    Args:
        output: File that is made of them in the end.
        job: Fingerprint of what is done.
    """

    def __init__(self, output: Path, job: str) -> None:
        self.folder = output.parent / f'.{output.name}.parts'
        self.draft = self.folder / '.draft'
        self._output, self._job = output, job
        self._where: dict[int, Path] = {}
        self._open = functools.lru_cache(_OPEN)(_opened)

    def start(self, overwrite: bool) -> None:
        """Make the folder, or take up what an earlier run of the same job has left there.

        Args:
            overwrite: Throw away what another job has left there.

        Raises:
            ValueError: If it is another job's, or one is at work there.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / 'lock').open('w')
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f'{self._output}: another run is at work on it') from None
        told = self.folder / _JOB
        job = json.loads(told.read_text())['job'] if told.exists() else None
        if job not in (None, self._job) and not overwrite:
            raise ValueError(
                f'{self.folder} holds an unfinished run with other images, weights or options: '
                f'repeat that command to finish it, or start anew with --overwrite'
            )
        # drafts of writes that were killed, or all: an --overwrite may have been killed here too
        for path in self.folder.glob('.*' if job == self._job else '*.*'):
            path.unlink()
        write_whole(told, json.dumps({'job': self._job}).encode())

    def write(self, arrays: Mapping[str, np.ndarray], unreadable: dict[int, str]) -> None:
        """Write one part.

        Args:
            arrays: By `INDEX.NUMBER`; none of these images is in another part.
            unreadable: Reasons by index.
        """
        first = min([*map(_index, arrays), *unreadable])
        told = {'unreadable': json.dumps(unreadable)}
        content = save({key: np.ascontiguousarray(a) for key, a in arrays.items()}, told)
        write_whole(self.folder / f'{first:08d}.safetensors', content)

    def read(self) -> dict[int, str]:
        """Look what is there; afterwards `indices` tells, and `arrays` gives it.

        Returns:
            Reasons for images that cannot be read, by index.

        Raises:
            ValueError: If a part is damaged.
        """
        unreadable: dict[int, str] = {}
        for path in sorted(self.folder.glob('*.safetensors')):
            part = _opened(path)
            told = json.loads(part.metadata()['unreadable'])
            unreadable |= {int(index): why for index, why in told.items()}
            self._where |= dict.fromkeys(map(_index, part.keys()), path)
        return unreadable

    @property
    def indices(self) -> list[int]:
        """Of the images whose features are there, in the order of the inputs."""
        return sorted(self._where)

    def arrays(self, index: int, count: int) -> list[np.ndarray]:
        """The arrays of an image, one an output."""
        part = self._open(self._where[index])
        return [part.get_tensor(f'{index}.{number}') for number in range(count)]

    def shapes(self, index: int, count: int) -> list[list[int]]:
        """Their shapes, without reading them."""
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
        raise ValueError(f'{path} is damaged ({error}): remove it and repeat this') from None
