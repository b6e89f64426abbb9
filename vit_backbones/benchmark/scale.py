"""What many images cost: embeddings written, indexed and searched, and images read from shards."""

import itertools
import resource
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from vit_backbones.benchmark.results import table_head, table_row
from vit_backbones.embeddings.nearest_index import index_folder, index_of
from vit_backbones.embeddings.store import Store, open_store, scan, unit
from vit_backbones.features.extractor import Extractor
from vit_backbones.features.feature_files import pyarrow
from vit_backbones.features.partitions import Embedded, Partitions
from vit_backbones.features.plan import Item
from vit_backbones.features.request import Request
from vit_backbones.features.shard_batches import Window
from vit_backbones.features.shard_job import extract_shards
from vit_backbones.features.sharing import Worker
from vit_backbones.shards.found import Shard, find_shards

_ROWS = 10_000  # of a file
_LATENT, _NOISE = 32, 0.3  # embeddings lie near a plane of 32 dimensions
_QUERIES, _NEAREST = 100, 10
_SEED = 0
_T = TypeVar('_T')
Times = tuple[float, float] | np.ndarray  # wall-clock and CPU seconds


class Step(NamedTuple):
    """A step, with the number of rows or queries that it went through.

    Attributes:
        seconds: Wall-clock time.
        cpu_seconds: Time of all cores, which others on the machine do not lengthen much.
        bytes: What it leaves on the disk.
        peak_memory_mib: The most that the process held until its end, PyTorch and pages of mapped
            files included.
        recall: Of the 10 nearest against the exact scan.
    """

    step: str
    number: int
    seconds: float
    cpu_seconds: float
    peak_memory_mib: float
    bytes: int | None = None
    recall: float | None = None


def measure_search(folder: Path, rows: int, dims: int) -> Iterator[Step]:
    """Write drawn embeddings in half precision, build their index, and search it and without it.

    Queries are drawn as the rows are, and none of them is a row.

    Raises:
        ImportError: If FAISS is missing.
        ValueError: If the folder holds something.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f'{folder} is not empty: name a new folder')
    times = [_write(folder, number, count, dims) for number, count in _files(rows)]
    yield _step('write', rows, np.sum(times, axis=0), bytes=_size(folder))
    store = open_store(folder)
    index, times = _timed(lambda: index_of(store))
    yield _step('build the index', rows, times, bytes=_size(index_folder(folder)))
    queries = unit(_drawn(_SEED, -1, _QUERIES, dims))
    _, alone = _timed(lambda: scan(store, queries[:1], _NEAREST))
    yield _step('scan for one query', 1, alone, recall=1.0)
    found, times = _timed(lambda: [index.search(each[None], _NEAREST)[1][0] for each in queries])
    _, exact = scan(store, queries, _NEAREST)
    yield _step('search the index', _QUERIES, times, recall=_recall(np.stack(found), exact))


def _files(rows: int) -> Iterator[tuple[int, int]]:
    """Numbers of files, and their rows."""
    return ((i, min(_ROWS, rows - s)) for i, s in enumerate(range(0, rows, _ROWS)))


def _timed(work: Callable[[], _T]) -> tuple[_T, Times]:
    """A result, and its wall-clock and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, (time.perf_counter() - wall, time.process_time() - cpu)


def _write(folder: Path, number: int, count: int, dims: int) -> Times:
    """Write a file as an extraction does."""
    vectors = _drawn(_SEED, number, count, dims)
    items = [Item(i, '', (224, 224), (224, 224)) for i in range(count)]
    keys = [f'{number:05}{i:05}' for i in range(count)]
    shard = Shard(f'{number:05}', [Path(f'{number:05}.tar')])
    partitions = Partitions(folder, dict(model='drawn', job='drawn'))
    embedded = Embedded(keys, items, vectors)
    return _timed(lambda: partitions.write(shard, embedded, dict(shard=shard.stamp())))[1]


def _drawn(seed: int, number: int, count: int, dims: int) -> np.ndarray:
    plane = np.random.default_rng(seed).normal(size=(_LATENT, dims)).astype(np.float32)
    random = np.random.default_rng([seed, number + 1])
    points = random.normal(size=(count, _LATENT)).astype(np.float32) @ plane / _LATENT**0.5
    return (points + _NOISE * random.normal(size=(count, dims))).astype(np.float16)


def _recall(found: np.ndarray, exact: np.ndarray) -> float:
    pairs = zip(found.tolist(), exact.tolist(), strict=True)
    return sum(len({*a} & {*b}) for a, b in pairs) / exact.size


def _step(name: str, number: int, times: Times, **more: Any) -> Step:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Step(name, number, *map(float, times), peak, **more)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def measure_extraction(
    images: Sequence[Path], extractor: Extractor, request: Request
) -> Iterator[Step]:
    """Extract the embeddings of images from files, a tar and a Parquet file; and only read them.

    Raises:
        ValueError: If the three do not give equal embeddings, or the folder holds something.
    """
    folder = request.out
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f'{folder} is not empty: name a new folder')
    folder.mkdir(parents=True, exist_ok=True)
    _pack(images, folder)
    kinds = {
        'files': [Shard('files', images)],
        'tar': find_shards([folder / 'images.tar']),
        'Parquet': find_shards([folder / 'images.parquet']),
    }
    size, stores = sum(path.stat().st_size for path in images), list[Store]()
    for kind, shards in kinds.items():
        _, times = _timed(lambda shards=shards: _read(shards, extractor, request))
        yield _step(f'read {kind}', len(images), times, bytes=size)
    for kind, shards in kinds.items():
        to = request._replace(out=folder / kind)
        _, times = _timed(lambda s=shards, to=to: extract_shards(s, extractor, to, Worker()))
        yield _step(f'extract from {kind}', len(images), times, bytes=_size(to.out))
        stores.append(open_store(to.out))
    _check_equal(stores)


def _pack(images: Sequence[Path], folder: Path) -> None:
    pa, parquet = pyarrow(instead='')
    with tarfile.open(folder / 'images.tar', 'w') as tar:
        for number, path in enumerate(images):
            tar.add(path, f'{number:08}{path.suffix}', recursive=False)
    table = pa.table(dict(image=[path.read_bytes() for path in images]))
    parquet.write_table(table, folder / 'images.parquet', row_group_size=100)


def _read(shards: Sequence[Shard], extractor: Extractor, request: Request) -> None:
    """Read, decode and resize images, and throw them away."""
    window = Window(request.batch_size, extractor.resize, extractor.loaded.reader)
    samples = itertools.chain.from_iterable(shard.samples() for shard in shards)
    for _ in extractor.read_ahead(window.batches(samples), request.num_workers):
        pass


def _check_equal(stores: Sequence[Store]) -> None:
    first, *others = (np.concatenate([v for _, v in store.blocks()]) for store in stores)
    if not all(np.array_equal(first, other) for other in others):
        raise ValueError('files, tar and Parquet give different embeddings')


_COLUMNS: tuple[tuple[str, str, Callable[[dict[str, Any]], str]], ...] = (
    ('step', 'step', lambda step: step['step']),
    ('number', 'rows, images or queries', lambda step: f'{step["number"]:,}'),
    ('seconds', 's', lambda step: f'{step["seconds"]:.1f}'),
    ('cpu_seconds', 'of cores', lambda step: f'{step["cpu_seconds"]:.1f}'),
    ('cpu_seconds', 'a core-second', lambda step: _rate(step['number'] / step['cpu_seconds'])),
    ('peak_memory_mib', 'peak memory', lambda step: f'{step["peak_memory_mib"] / 1024:.2f} GiB'),
    ('bytes', 'on the disk', lambda step: f'{step["bytes"] / 2**30:.3f} GiB'),
    ('recall', 'recall of 10', lambda step: f'{step["recall"]:.3f}'),
)


def _rate(number: float) -> str:
    return f'{number:,.0f}' if number >= 10 else f'{number:.2g}'


def step_table(steps: Sequence[dict[str, Any]]) -> list[str]:
    """Steps, as `Step._asdict` gives them, in lines of Markdown."""
    rows = [[_cell(step, *column) for column in _COLUMNS] for step in steps]
    return [*table_head([heading for _, heading, _ in _COLUMNS]), *map(table_row, rows)]


def _cell(step: dict[str, Any], key: str, _: str, write: Callable[[dict[str, Any]], str]) -> str:
    return '' if step[key] is None else write(step)
