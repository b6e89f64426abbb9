"""Reading the embeddings that `tools/extract_features.py` has written."""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_backbones.errors import require

_METADATA = b'vit_backbones'


class Embeddings(NamedTuple):
    """The embeddings of a file.

    Attributes:
        file: Where they were read from.
        paths: Of the images, as they stand in the file; each one once.
        vectors: (N, C) float32, all finite, one for each path.
        settings: How they were made: model, weights, layers and so on; empty if the file is silent.
        notes: What was left out of the file, a line each.
    """

    file: Path
    paths: list[str]
    vectors: np.ndarray
    settings: dict[str, Any]
    notes: list[str]

    def output(self, kind: str) -> Path:
        """The file beside this one for what is made from it, e.g. `'search.png'`."""
        return self.file.with_name(f'{self.file.name}.{kind}')


def read_embeddings(file: str | Path) -> Embeddings:
    """Read a Parquet file of embeddings.

    Args:
        file: With the columns `path` (string) and `embedding` (fixed-size list of floats), and
            the JSON metadata `vit_backbones`, which may be missing. Others are not read.

    Returns:
        The embeddings without rows that repeat a path and rows that are not finite.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If pyarrow is missing.
        ValueError: If it is no Parquet file, lacks these columns or holds nothing.
    """
    file = Path(file)
    table = _read(file)
    paths = table['path'].to_pylist()
    column = table['embedding'].combine_chunks()
    vectors = column.flatten().to_numpy().reshape(len(paths), -1).astype(np.float32)
    first = {path: i for i, path in reversed(list(enumerate(paths)))}
    is_first = np.array([first[path] == i for i, path in enumerate(paths)])
    is_finite = np.isfinite(vectors).all(axis=1)
    keep = is_first & is_finite
    if not keep.any():
        raise ValueError(f'{file}: no embedding in it is finite')
    settings = json.loads((table.schema.metadata or {}).get(_METADATA, b'{}'))
    notes = _notes(file, paths, is_first, is_finite)
    return Embeddings(
        file, [paths[i] for i in np.flatnonzero(keep)], vectors[keep], settings, notes
    )


def _read(file: Path) -> Any:
    """The two columns as pyarrow's table."""
    pa = require('pyarrow', 'reading Parquet', 'pyarrow')
    parquet = require('pyarrow.parquet', 'reading Parquet', 'pyarrow')
    if not file.is_file():
        raise FileNotFoundError(
            f'{file} does not exist; tools/extract_features.py IMAGES --out {file} writes it'
        )
    try:
        schema = parquet.read_schema(file)
        kinds = {name: schema.field(name).type for name in schema.names}
        _check_kinds(pa, file, kinds)
        table = parquet.read_table(file, columns=['path', 'embedding'])
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f'{file}: no Parquet file, or a damaged one ({error})') from None
    if not table.num_rows:
        raise ValueError(f'{file}: no rows in it')
    if table['path'].null_count or table['embedding'].null_count:
        raise ValueError(f'{file}: a row lacks its path or its embedding')
    return table


def _check_kinds(pa: Any, file: Path, kinds: dict[str, Any]) -> None:
    path, embedding = kinds.get('path'), kinds.get('embedding')
    is_text = path is not None and (pa.types.is_string(path) or pa.types.is_large_string(path))
    is_vector = embedding is not None and pa.types.is_fixed_size_list(embedding)
    if not (is_text and is_vector and pa.types.is_floating(embedding.value_type)):
        columns = ', '.join(f'{name} {kind}' for name, kind in kinds.items()) or 'nothing'
        raise ValueError(
            f'{file}: it wants the columns path (string) and embedding (fixed-size list of floats) '
            f'of tools/extract_features.py, and has {columns}'
        )


def _notes(
    file: Path, paths: Sequence[str], is_first: np.ndarray, is_finite: np.ndarray
) -> list[str]:
    reasons = {
        'repeat the path of another': ~is_first,
        'have an embedding that is not finite': is_first & ~is_finite,
    }
    return [
        f'{file}: left out {where.sum()} of {len(paths)} rows, which {reason}, e.g. '
        f'{paths[np.flatnonzero(where)[0]]}'
        for reason, where in reasons.items()
        if where.any()
    ]


def num_distinct(vectors: np.ndarray) -> int:
    """How many of (N, C) vectors differ."""
    return len(np.unique(vectors, axis=0))


class PathFinder:
    """Finds images by paths that other people wrote.

    Args:
        paths: Of the images, each one once.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._exact: dict[str, int] = {}
        self._by_name: dict[str, list[tuple[int, tuple[str, ...]]]] = defaultdict(list)
        for i, path in enumerate(paths):
            self._exact[os.path.abspath(path)] = i
            self._by_name[Path(path).name].append((i, Path(path).parts))

    def exact(self, path: str) -> int | None:
        """Number of the image with this very path, if there is one."""
        return self._exact.get(os.path.abspath(path))

    def find(self, path: str) -> int | None:
        """Number of the image that a path means.

        Args:
            path: The same path, or the end of it, down to the file name alone; or a longer one
                with the same end.

        Raises:
            ValueError: If it may be several.
        """
        exact = self.exact(path)
        if exact is not None:
            return exact
        parts = Path(path).parts
        found = [(i, own) for i, own in self._by_name[Path(path).name] if _same_end(parts, own)]
        if len(found) > 1:
            these = ' or '.join(str(Path(*own)) for _, own in found[:2])
            raise ValueError(f'{path} may be {these}: write more of its path')
        return found[0][0] if found else None


def _same_end(one: Sequence[str], other: Sequence[str]) -> bool:
    shorter = min(len(one), len(other))
    return one[-shorter:] == other[-shorter:]
