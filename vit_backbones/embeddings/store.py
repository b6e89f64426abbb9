"""Embeddings on the disk, of any number: read a bit at a time, and scanned exactly."""

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_backbones.errors import one_line
from vit_backbones.features.embedding_tables import name_columns, names_of, open_files, vectors_of
from vit_backbones.features.feature_files import pyarrow
from vit_backbones.files import mark
from vit_backbones.shards.found import is_shard

_ROWS = 16384  # that are read at once


class Store(NamedTuple):
    """A file of embeddings, or all files of a data set, as one run of rows.

    Attributes:
        place: The file or folder.
        files: All files.
        counts: Rows of each.
        length: Numbers of an embedding.
        settings: How they were made; empty if nothing says it.
    """

    place: Path
    files: Sequence[Path]
    counts: Sequence[int]
    length: int
    settings: dict[str, Any]

    @property
    def total(self) -> int:
        """Number of rows."""
        return sum(self.counts)

    def fingerprint(self) -> str:
        """Names, sizes and times of all files."""
        known = [(path.name, path.stat()) for path in self.files]
        return mark('\n'.join(f'{name!r} {s.st_size} {s.st_mtime_ns}' for name, s in known))

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """All embeddings at length 1, float32 (n, C), with the number of their first row.

        Rows that are not finite become zeros, which are near nothing.
        """
        first = 0
        for path in self.files:
            for batch in _batches(path, ['embedding']):
                yield first, unit(vectors_of(batch.column(0)))
                first += len(batch)

    def names(self, rows: Sequence[int]) -> list[str]:
        """The names of images by row: `SHARD/KEY`, or the path of a file."""
        return [names_of(self._row(row, name_columns))[0] for row in rows]

    def vector(self, row: int) -> np.ndarray:
        """The embedding (C,) of a row, at length 1."""
        return unit(vectors_of(self._row(row, lambda _: ['embedding'])['embedding']))[0]

    def _row(self, row: int, columns: Callable[[Sequence[str]], list[str]]) -> Any:
        """A table of one row; `columns` chooses among those of its file."""
        number = int(np.searchsorted(np.cumsum(self.counts), row, side='right'))
        row -= sum(self.counts[:number])
        _, parquet = pyarrow(instead='')
        with parquet.ParquetFile(self.files[number]) as file:
            group = 0
            while row >= (rows := file.metadata.row_group(group).num_rows):
                row, group = row - rows, group + 1
            return file.read_row_group(group, columns(file.schema_arrow.names)).slice(row, 1)

    def find(self, query: str) -> int | None:
        """The row whose image has this name or key, or path in another spelling; or `None`.

        Raises:
            ValueError: If several images have the key.
        """
        pa, _ = pyarrow(instead='')
        found, first = [], 0
        for path in self.files:
            for batch in _batches(path, None):
                rows = _matches(pa.Table.from_batches([batch]), query)
                found += [first + int(row) for row in rows]
                first += len(batch)
        if len(found) > 1:
            these = ' or '.join(self.names(found[:2]))
            raise ValueError(f'{query} may be {these}: write the whole name')
        return found[0] if found else None


def open_store(place: str | Path) -> Store:
    """Look at the files of embeddings in a file or a data set, without reading them.

    Raises:
        ImportError: If pyarrow is missing.
        ValueError: If a file is none of embeddings, or two of a data set do not go together.
    """
    found = open_files(place)
    files, ends = zip(*found, strict=True)
    return Store(Path(place), files, [each.rows for each in ends], ends[0].length, ends[0].settings)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (N, C) at length 1, float32; zeros where they are not finite."""
    vectors = vectors.astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    good = np.isfinite(lengths) & (lengths > 0)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=good)


def scan(store: Store, queries: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """The `top` largest cosines of queries (Q, C) by comparing all rows, and their rows: (Q, top).

    Queries are at length 1. There are fewer than `top` if the store has fewer rows.
    """
    cosines = np.empty((len(queries), 0), np.float32)
    rows = np.empty((len(queries), 0), np.int64)
    for first, vectors in store.blocks():
        new = queries @ vectors.T
        best = np.argpartition(-new, min(top, len(vectors)) - 1, axis=1)[:, :top]
        cosines = np.hstack([cosines, np.take_along_axis(new, best, axis=1)])
        rows = np.hstack([rows, first + best])
        order = np.argsort(-cosines, axis=1, kind='stable')[:, :top]
        cosines, rows = (np.take_along_axis(each, order, axis=1) for each in (cosines, rows))
    return cosines, rows


def _batches(path: Path, columns: list[str] | None) -> Iterator[Any]:
    """Rows of a file in bits; those that name images by default."""
    pa, parquet = pyarrow(instead='')
    try:
        with parquet.ParquetFile(path) as file:
            names = columns or name_columns(file.schema_arrow.names)
            yield from file.iter_batches(_ROWS, columns=names)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f'{path}: damaged ({one_line(error)})') from None


def _matches(table: Any, query: str) -> np.ndarray:
    """Rows of a table whose image a query means."""
    pa, _ = pyarrow(instead='')
    compute = importlib.import_module('pyarrow.compute')
    spelled = pa.array(sorted({query, os.path.relpath(query), os.path.abspath(query)}))
    is_path = 'path' in table.column_names
    found = compute.is_in(table['path' if is_path else 'key'], value_set=spelled)
    for shard in [] if is_path else filter(is_shard, Path(query).parents):
        in_shard = compute.fill_null(compute.equal(table['shard'], str(shard)), False)
        key = compute.equal(table['key'], os.path.relpath(query, shard))
        found = compute.or_(found, compute.and_(in_shard, key))
    return np.flatnonzero(found.to_numpy())
