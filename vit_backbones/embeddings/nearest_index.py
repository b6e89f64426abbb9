"""An index of FAISS over embeddings on the disk, kept beside them.

It is an inverted file (`IndexIVFScalarQuantizer`, https://arxiv.org/abs/2401.08281): k-means of a
sample gives cells, each row is kept in its cell in half precision, and a query is compared with the
rows of the cells nearest to it. Cells are filled block by block and merged on the disk, so that
neither building nor searching holds all rows in memory.
"""

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from vit_backbones.embeddings.store import Store, scan
from vit_backbones.errors import require
from vit_backbones.files import json_of, mark, write_whole
from vit_backbones.terminal import quiet_stream

INSTALL = 'pip install vit_backbones[faiss]'
_BLOCK = 512 * 2**20  # bytes of a block in half precision
_PER_CELL = 40  # rows of the sample for each cell; FAISS warns below 39
_QUERIES, _NEAREST = 100, 10  # by which the recall is measured
_RECALL = 0.95  # for which as many cells are searched
_SEED = 0
_OLD = 24 * 3600  # seconds
_RECORD, _CELLS, _LISTS = 'record.json', 'cells.faiss', 'rows.ivfdata'


class Index(NamedTuple):
    """An index that is ready to search.

    Attributes:
        record: `rows`, `cells`, `searched` (cells), `recall` (of the 10 nearest, over 100 rows as
            queries, against the exact scan), `seconds` (of building) and `bytes` (on the disk).
        built: Whether it was built just now.
    """

    index: Any
    record: dict[str, Any]
    built: bool

    @property
    def line(self) -> str:
        """What it is, and how far to trust it."""
        noted = self.record
        made = f'built in {noted["seconds"]:.0f} s, ' * self.built
        return (
            f'index of {noted["rows"]} images: {made}{noted["searched"]} of {noted["cells"]} cells '
            f'are searched, and find {noted["recall"]:.3f} of the 10 nearest'
        )

    def search(self, queries: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        """The largest cosines of queries (Q, C) of length 1, and their rows; -1 for no row."""
        return self.index.search(queries, top)


def faiss() -> ModuleType:
    """Import FAISS, or raise an ImportError with the fix."""
    return require('faiss', 'an index', 'FAISS', extra='faiss')


def index_of(store: Store) -> Index:
    """The index of embeddings, built if it is missing or of other data.

    Raises:
        ImportError: If FAISS is missing.
        OSError: If it cannot be written.
    """
    folder = index_folder(store.place)
    fingerprint = store.fingerprint()
    record = folder / _RECORD
    noted = json_of(record.read_bytes(), record, dict) if record.exists() else {}
    built = noted.get('data') != fingerprint
    if built:
        noted = _build(store, folder, fingerprint)
    flags = faiss().IO_FLAG_ONDISK_SAME_DIR | faiss().IO_FLAG_READ_ONLY
    with quiet_stream(1):
        index = faiss().read_index(str(folder / _CELLS), flags)
    index.nprobe = noted['searched']
    return Index(index, noted, built)


def index_folder(place: Path) -> Path:
    """Where the index of a file or a data set lies."""
    return place / '_index' if place.is_dir() else place.with_name(f'{place.name}.index')


def _build(store: Store, folder: Path, fingerprint: str) -> dict[str, Any]:
    """Build an index in a folder, whole or not at all; gives its record."""
    logging.getLogger('faiss').setLevel(logging.WARNING)
    started, draft = time.monotonic(), folder.with_name(f'.{mark(folder.name)}.{os.getpid()}')
    for path in folder.parent.glob(f'.{mark(folder.name)}.*'):
        if time.time() - path.stat().st_mtime > _OLD:  # of a killed process
            shutil.rmtree(path)
    draft.mkdir()
    try:
        sample = _sample(store, _PER_CELL * _number_of_cells(store.total))
        index = _fill(store, sample, draft)
        queries = sample[np.random.default_rng(_SEED).permutation(len(sample))[:_QUERIES]]
        recall = _tune(index, store, queries)
        record = dict(
            data=fingerprint,
            rows=store.total,
            cells=index.nlist,
            searched=index.nprobe,
            recall=recall,
            seconds=time.monotonic() - started,
            bytes=sum(path.stat().st_size for path in draft.iterdir()),
        )
        write_whole(draft / _RECORD, json.dumps(record, indent=1).encode())
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return record


def _number_of_cells(rows: int) -> int:
    return max(1, round(math.sqrt(rows)))


def _sample(store: Store, number: int) -> np.ndarray:
    """Random rows (n, C), about `number` of them."""
    random, share = np.random.default_rng(_SEED), min(1, number / store.total)
    return np.concatenate([v[random.random(len(v)) < share] for _, v in store.blocks()])


def _fill(store: Store, sample: np.ndarray, folder: Path) -> Any:
    """Train an index on a sample, fill it with all rows, and write it."""
    lib, ondisk = faiss(), require('faiss.contrib.ondisk', 'an index', 'FAISS', extra='faiss')
    cells = min(_number_of_cells(store.total), len(sample))
    quantizer = lib.IndexFlatIP(store.length)
    kind, cosine = lib.ScalarQuantizer.QT_fp16, lib.METRIC_INNER_PRODUCT
    index = lib.IndexIVFScalarQuantizer(quantizer, store.length, cells, kind, cosine)
    index.train(sample)
    blocks = list(_written_blocks(store, index, folder))
    with quiet_stream(1):
        ondisk.merge_ondisk(index, blocks, str(folder / _LISTS))
    lib.write_index(index, str(folder / _CELLS))
    for path in blocks:
        os.unlink(path)
    return index


def _written_blocks(store: Store, index: Any, folder: Path) -> Iterator[str]:
    """Put rows into the cells of an index block by block, and write each block."""
    number = 0
    for first, vectors in store.blocks():
        index.add_with_ids(vectors, np.arange(first, first + len(vectors)))
        done = first + len(vectors) == store.total
        if done or index.ntotal * index.code_size >= _BLOCK:
            path = str(folder / f'{number}.block')
            faiss().write_index(index, path)
            yield path
            index.reset()
            number += 1


def _tune(index: Any, store: Store, queries: np.ndarray) -> float:
    """Search as few cells as the recall allows; gives the recall, which leaves out the query."""
    top = min(_NEAREST + 1, store.total)
    _, exact = scan(store, queries, top)
    wanted = [set(rows[1:].tolist()) for rows in exact]
    index.nprobe = 1
    while True:
        _, found = index.search(queries, top)
        hits = [len(want & set(rows.tolist())) for want, rows in zip(wanted, found, strict=True)]
        recall = sum(hits) / max(1, sum(map(len, wanted)))
        if recall >= _RECALL or index.nprobe >= index.nlist:
            return recall
        index.nprobe = min(2 * index.nprobe, index.nlist)
