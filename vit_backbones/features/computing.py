"""Computing the batches of a plan, some of them by each process."""

import contextlib
import datetime
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.progress import Progress

from vit_backbones.features.extractor import Extractor
from vit_backbones.features.parts import Parts
from vit_backbones.features.plan import Item

_SECONDS = 15.0  # between parts
_BYTES = 256 * 2**20  # of a part


class Processes(NamedTuple):
    """The processes that share the work, as torchrun tells them."""

    rank: int
    count: int

    @classmethod
    def join(cls) -> 'Processes':
        """Meet the others, if there are any."""
        rank, count = (int(os.environ.get(k, d)) for k, d in (('RANK', 0), ('WORLD_SIZE', 1)))
        if count > 1 and not torch.distributed.is_initialized():
            patience = datetime.timedelta(days=1)  # the others may have more to do
            torch.distributed.init_process_group('gloo', timeout=patience)
        return cls(rank, count)

    def wait(self) -> None:
        """Wait for the others; ends quietly when one of them has failed, which tells why."""
        if self.count > 1:
            try:
                torch.distributed.barrier()
            except RuntimeError:
                raise SystemExit(2) from None

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Tell what fails in one process alone; what fails in all is told by the first."""
        try:
            yield
        except (OSError, RuntimeError, ValueError) as error:
            if self.rank:
                raise SystemExit(f'error: {" ".join(str(error).split())}') from None
            raise


def compute(
    batches: Sequence[Sequence[Item]],
    extractor: Extractor,
    num_workers: int,
    parts: Parts,
    progress: Progress,
) -> None:
    """Compute batches, and write them whole from time to time.

    Args:
        batches: Images of one size each.
        extractor: Computes them.
        num_workers: Threads that read images ahead.
        parts: Take what is finished.
        progress: Is told of it.

    Raises:
        OSError: If a part cannot be written.
        ValueError: If a number is not finite.
    """
    group, size, since = _Group(parts), 0, time.monotonic()
    task = progress.add_task('images', total=sum(map(len, batches)))
    try:
        for batch, images in read_ahead(batches, extractor, num_workers):
            size += group.add(batch, images, extractor)
            progress.advance(task, len(batch))
            if size >= _BYTES or time.monotonic() - since >= _SECONDS:
                group.write()
                size, since = 0, time.monotonic()
    except KeyboardInterrupt:
        group.write()
        raise
    group.write()


class _Group:
    """Finished batches on the way to the disk."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._clear()

    def _clear(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}
        self._unreadable: dict[int, str] = {}

    def add(
        self, batch: Sequence[Item], images: Sequence[np.ndarray | str], extractor: Extractor
    ) -> int:
        """Compute one batch; gives its bytes."""
        both = list(zip(batch, images, strict=True))
        readable = [(item, image) for item, image in both if not isinstance(image, str)]
        arrays: dict[str, np.ndarray] = {}
        if readable:
            outputs = extractor.run([image for _, image in readable])
            for (item, _), output in zip(readable, outputs, strict=True):
                arrays |= {f'{item.index}.{i}': array for i, array in enumerate(output)}
        self._unreadable |= {item.index: why for item, why in both if isinstance(why, str)}
        self._arrays |= arrays  # all at once: of what is interrupted nothing is there
        return sum(array.nbytes for array in arrays.values())

    def write(self) -> None:
        """Write what is there, if anything, as one part."""
        if self._arrays or self._unreadable:
            self._parts.write(self._arrays, self._unreadable)
            self._clear()


def read_ahead(
    batches: Sequence[Sequence[Item]], extractor: Extractor, num_workers: int
) -> Iterator[tuple[Sequence[Item], list[np.ndarray | str]]]:
    """The images of batches, of which the next ones are read meanwhile.

    Args:
        batches: In the order in which they are given.
        extractor: Reads an image.
        num_workers: Threads; 0 reads each batch when it is wanted.
    """
    if not num_workers:
        yield from ((batch, [extractor.read(item) for item in batch]) for batch in batches)
        return
    waiting: deque = deque()
    pool = ThreadPoolExecutor(num_workers)
    try:
        for batch in batches:
            waiting.append((batch, [pool.submit(extractor.read, item) for item in batch]))
            if len(waiting) > 1 + num_workers // len(batch):
                yield _arrived(*waiting.popleft())
        while waiting:
            yield _arrived(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _arrived(batch: Sequence[Item], futures: Sequence[Any]) -> tuple[Sequence[Item], list]:
    return batch, [future.result() for future in futures]
