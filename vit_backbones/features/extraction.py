"""Features of many images in one file: the whole job, from the arguments to the closing line."""

import datetime
import hashlib
import os
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vit_backbones import __version__
from vit_backbones.features.extractor import Extractor
from vit_backbones.features.outputs import WRITERS, Rows, pyarrow, read_metadata
from vit_backbones.features.parts import Parts
from vit_backbones.features.plan import Item, Plan, make_plan
from vit_backbones.files import write_whole
from vit_backbones.loading import Choice, Loaded, load_backbone
from vit_backbones.sources.base import PoolingError

_SECONDS = 15.0  # between parts
_BYTES = 256 * 2**20  # of a part
_NAMED = 3
_MAPS = ('featmap', 'raw')


class Request(NamedTuple):
    """What a command line asks for.

    Attributes:
        out: File to write: `.parquet`, `.npz` or `.safetensors`.
        out_type: Form of the features.
        pool: Pooling, in place of `out_type`.
        size: (H, W) or the shorter side.
        batch_size: Images at once.
        dtype: `'fp32'`, `'bf16'` or `'fp16'`.
        normalize: Scale embeddings to length 1.
        device: Where to compute; by default a GPU if there is one.
        num_workers: Threads that read images ahead.
        overwrite: Start anew, whatever is there.
    """

    out: Path
    out_type: str | None = None
    pool: str | None = None
    size: Sequence[int] | None = None
    batch_size: int = 8
    dtype: str = 'fp32'
    normalize: bool = False
    device: str | None = None
    num_workers: int = 2
    overwrite: bool = False


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
        """Wait for the others."""
        if self.count > 1:
            torch.distributed.barrier()


def check_request(request: Request) -> None:
    """Find out before the work starts whether the output can be written.

    Raises:
        ImportError: If pyarrow is missing.
        OSError: If the folder cannot be made or written to.
        ValueError: For arguments that contradict each other.
    """
    out = request.out
    if out.suffix not in WRITERS:
        raise ValueError(f'--out {out}: write to one of {", ".join(f"*{s}" for s in WRITERS)}')
    if out.suffix == '.parquet':
        pyarrow()
        if request.out_type in _MAPS:
            raise ValueError(
                f'--out {out}: Parquet holds embeddings; write --out-type {request.out_type} to '
                f'.npz or .safetensors'
            )
    if request.pool and request.out_type:
        raise ValueError('--pool gives embeddings in place of --out-type: give one of them')
    if request.batch_size < 1 or request.num_workers < 0:
        raise ValueError(
            f'--batch-size starts at 1 and --num-workers at 0, got {request.batch_size} and '
            f'{request.num_workers}'
        )
    if out.is_dir():
        raise ValueError(f'--out {out} is a folder')
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        tempfile.TemporaryFile(dir=out.parent).close()
    except OSError as error:
        error.filename = str(out.parent)
        raise


def prepare(choice: Choice, request: Request) -> Extractor:
    """Load the backbone in the form that the output needs.

    Raises:
        OSError, RuntimeError, ValueError: For what is wrong with the choice or the request.
    """
    embeds = request.out.suffix == '.parquet'
    device = request.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    if device == 'cuda':
        device = f'cuda:{os.environ.get("LOCAL_RANK", 0)}'
    return Extractor(
        _load(choice, request, embeds),
        size=request.size,
        dtype=request.dtype,
        normalize=request.normalize,
        joined=embeds,
        device=device,
    )


def _load(choice: Choice, request: Request, embeds: bool) -> Loaded:
    if request.pool or request.out_type:
        form = dict(pool=request.pool) if request.pool else dict(out_type=request.out_type)
        return load_backbone(choice, **form)
    if not embeds:
        return load_backbone(choice)
    for pool in ('model', 'cls'):
        try:
            return load_backbone(choice, pool=pool)
        except PoolingError:
            continue
    return load_backbone(choice, pool='avg')


def extract(paths: Sequence[Path], extractor: Extractor, request: Request) -> tuple[str, int]:
    """Write the features of images, or go on where an earlier run has ended.

    Args:
        paths: The images.
        extractor: Made by `prepare`.
        request: Checked by `check_request`.

    Returns:
        A closing line and an exit code: 2 if not one image could be read.

    Raises:
        OSError: If something cannot be written; finished parts stay.
        ValueError: If there is an output or a part of another job, and no `overwrite`.
    """
    started, processes = time.monotonic(), Processes.join()
    job = _fingerprint(paths, extractor, request.batch_size)
    if request.out.exists() and not request.overwrite:
        if read_metadata(request.out).get('job') == job:
            return '' if processes.rank else f'{request.out} holds these features already', 0
        raise ValueError(
            f'{request.out} exists and holds something else than these features (other images, '
            f'weights or options): choose another --out, or replace it with --overwrite'
        )
    parts = Parts(request.out, job)
    processes.wait()
    if processes.rank == 0:
        parts.start(request.overwrite)
    processes.wait()
    with _progress(processes.rank) as progress:
        plan = _plan(paths, extractor, request, progress)
        done, _ = parts.read()
        processes.wait()
        todo = [number for number in range(len(plan.batches)) if number not in done]
        _run(plan, todo[processes.rank :: processes.count], extractor, request, parts, progress)
    processes.wait()
    if processes.rank:
        return '', 0
    before = sum(len(plan.batches[number]) for number in done)
    summary = _join(plan, paths, extractor, request, parts, job)
    return _closing_line(summary, len(paths), before, time.monotonic() - started, request.out)


def _fingerprint(paths: Sequence[Path], extractor: Extractor, batch_size: int) -> str:
    digest = hashlib.sha256(f'{__version__} {batch_size} {extractor.fingerprint()}'.encode())
    for path in paths:
        try:
            told = path.stat()
            digest.update(f'{path!r} {told.st_size} {told.st_mtime_ns}\n'.encode())
        except OSError:
            digest.update(f'{path!r} missing\n'.encode())
    return digest.hexdigest()


def _progress(rank: int) -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    shown, hidden = TextColumn('{task.description}'), rank > 0 or not console.is_terminal
    return Progress(shown, *columns, console=console, transient=True, disable=hidden)


def _plan(
    paths: Sequence[Path], extractor: Extractor, request: Request, progress: Progress
) -> Plan:
    def track(sizes: Iterable) -> Iterable:
        return progress.track(sizes, total=len(paths), description='headers')

    plan = make_plan(paths, extractor.resize, request.batch_size, request.num_workers, track)
    others = sum(item.shown != item.size for item in plan.items.values())
    if extractor.fixed and others:
        height, width = extractor.fixed
        progress.console.print(
            f'{extractor.loaded.name} takes images of {height}x{width} alone: {others} of '
            f'{len(paths)} are resized',
            highlight=False,
            soft_wrap=True,
        )
    return plan


def _run(
    plan: Plan,
    numbers: Sequence[int],
    extractor: Extractor,
    request: Request,
    parts: Parts,
    progress: Progress,
) -> None:
    """Compute batches, and write them whole from time to time."""
    group, size, since = _Group(parts), 0, time.monotonic()
    task = progress.add_task('images', total=sum(len(plan.batches[n]) for n in numbers))
    batches = [plan.batches[number] for number in numbers]
    try:
        ahead = read_ahead(batches, extractor, request.num_workers)
        for number, (batch, images) in zip(numbers, ahead, strict=True):
            size += group.add(number, batch, images, extractor)
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
        self._batches: list[int] = []
        self._arrays: dict[str, np.ndarray] = {}
        self._unreadable: dict[int, str] = {}

    def add(
        self,
        number: int,
        batch: Sequence[Item],
        images: Sequence[np.ndarray | str],
        extractor: Extractor,
    ) -> int:
        """Compute one batch; gives its bytes."""
        both = list(zip(batch, images, strict=True))
        readable = [(item, image) for item, image in both if not isinstance(image, str)]
        arrays: dict[str, np.ndarray] = {}
        if readable:
            outputs = extractor.run([image for _, image in readable])
            for (item, _), output in zip(readable, outputs, strict=True):
                arrays |= {f'{item.index}.{i}': array for i, array in enumerate(output)}
        self._arrays |= arrays
        self._unreadable |= {item.index: why for item, why in both if isinstance(why, str)}
        self._batches.append(number)  # last: what is interrupted is not there
        return sum(array.nbytes for array in arrays.values())

    def write(self) -> None:
        """Write what is there, if anything, as one part."""
        if self._batches:
            self._parts.write(self._batches, self._arrays, self._unreadable)
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


class _Summary(NamedTuple):
    """What was written.

    Attributes:
        what: The features, in words.
        unreadable: Reasons by path.
        listed: Where these are listed.
    """

    what: str
    unreadable: dict[str, str]
    listed: Path


def _join(
    plan: Plan,
    paths: Sequence[Path],
    extractor: Extractor,
    request: Request,
    parts: Parts,
    job: str,
) -> _Summary:
    """Make the output of all parts, and list what could not be read."""
    _, undecodable = parts.read()
    unreadable = {str(paths[i]): why for i, why in sorted((plan.unreadable | undecodable).items())}
    listed = request.out.with_name(f'{request.out.name}.unreadable.txt')
    if unreadable:
        lines = ''.join(f'{path}: {why}\n' for path, why in unreadable.items())
        write_whole(listed, lines.encode(errors='surrogateescape'))
    else:
        listed.unlink(missing_ok=True)
    items = [plan.items[index] for index in parts.indices]
    what = _form(extractor)
    if items:
        count = len(extractor.names) or 1
        rows = Rows(
            items,
            extractor.names,
            lambda item: parts.arrays(item.index, count),
            lambda item: parts.shapes(item.index, count),
            extractor.dtype,
        )
        try:
            WRITERS[request.out.suffix](parts.draft, rows, _metadata(extractor, job))
            os.replace(parts.draft, request.out)
        except OSError as error:  # a full disk does not tell where
            parts.draft.unlink(missing_ok=True)
            error.filename = str(request.out)
            raise
    parts.remove()
    return _Summary(what, unreadable, listed)


def _metadata(extractor: Extractor, job: str) -> dict[str, Any]:
    loaded, vit = extractor.loaded, extractor.loaded.backbone
    return dict(
        model=loaded.name,
        source=str(loaded.options.get('source', 'timm')),
        weights=str(loaded.weights),
        layers=list(vit.out_indices),
        dims=list(vit.out_channels),
        pool=extractor.form,
        strides=list(vit.strides),
        num_prefix_tokens=vit.num_prefix_tokens,
        mean=list(loaded.mean),
        std=list(loaded.std),
        version=__version__,
        job=job,
        **extractor.settings,
    )


def _form(extractor: Extractor) -> str:
    layers, dims = ', '.join(extractor.layers), extractor.loaded.backbone.out_channels
    place = f'layer{"s" * (len(dims) > 1)} {layers}'
    if extractor.embeds:
        return f'{sum(dims)} numbers each (pool={extractor.form}, {place})'
    return f'{extractor.form} of {", ".join(map(str, sorted(set(dims))))} channels ({place})'


def _closing_line(
    summary: _Summary, total: int, before: int, seconds: float, out: Path
) -> tuple[str, int]:
    failed, number = summary.unreadable, total - len(summary.unreadable)
    names = ', '.join(list(failed)[:_NAMED]) + ', ...' * (len(failed) > _NAMED)
    if not number:
        _, why = next(iter(failed.items()))
        listed = f'listed in {summary.listed}'
        return f'none of {total} images can be read: {names} ({why}; {listed})', 2
    pieces = [
        f'{number} image{"s" * (number > 1)}, {summary.what}',
        f'{seconds:.0f} s',
        f'{(total - before) / seconds:.1f} images/s',
        str(out),
    ]
    if before:
        pieces.insert(1, f'{before} of them from an earlier run')
    if failed:
        pieces.append(f'{len(failed)} unreadable: {names} (listed in {summary.listed})')
    return ' · '.join(pieces), 0
