"""Embeddings in files of Parquet, read back: one file, or the folder of a data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_backbones.errors import one_line
from vit_backbones.features.feature_files import KEY, pyarrow, read_metadata
from vit_backbones.files import json_of


class Embeddings(NamedTuple):
    """The embeddings of a file or a data set.

    Attributes:
        paths: Paths of the images, as the file has them; each one once. Of a data set also
            `SHARD/KEY`.
        vectors: (N, C) float32, all finite, one per path.
        settings: The file's metadata, empty if it has none.
        notes: A line for each kind of rows that were left out.
    """

    file: Path
    paths: list[str]
    vectors: np.ndarray
    settings: dict[str, Any]
    notes: list[str]

    def output(self, kind: str) -> Path:
        """The path beside this file for a result of a kind, such as `'search.png'`."""
        return output_beside(self.file, kind)


def output_beside(file: Path, kind: str) -> Path:
    """The path beside a file or a folder for a result of a kind."""
    return file.parent / f'{file.absolute().name}.{kind}'


class Opened(NamedTuple):
    """What the end of a file says about it: rows, numbers of an embedding, metadata."""

    rows: int
    length: int
    settings: dict[str, Any]


def embedding_files(place: str | Path) -> list[Path]:
    """The files of embeddings in a data set, sorted; a file is one by itself.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If a folder holds no Parquet files.
    """
    place = Path(place)
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise FileNotFoundError(f'{place} does not exist; tools/extract_features.py writes it')
    found = [path for path in sorted(place.glob('*.parquet')) if path.name[0] not in '._']
    if not found:
        raise ValueError(f'{place}: no .parquet files in it')
    return found


def open_file(file: Path) -> Opened:
    """Read the end of a file and check its columns, `path` or `key` and `shard`, and `embedding`.

    Raises:
        ValueError: If it is no Parquet file or lacks these columns.
    """
    pa, parquet = pyarrow(instead='')
    try:
        metadata = parquet.read_metadata(file)
        schema = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError) as error:
        raise _damaged(file, error) from None
    kinds = {name: schema.field(name).type for name in schema.names}
    _check_kinds(pa, file, kinds)
    noted = (schema.metadata or {}).get(KEY.encode(), b'{}')
    settings = json_of(noted, f'{file}: its note {KEY!r}', dict)
    return Opened(metadata.num_rows, kinds['embedding'].list_size, settings)


def open_files(place: str | Path) -> list[tuple[Path, Opened]]:
    """All files of a data set, which must have been made in one way.

    Raises:
        ValueError: As `open_file`, or if two files do not go together.
    """
    found = [(path, open_file(path)) for path in embedding_files(place)]
    first, (_, length, settings) = found[0]
    for path, each in found:
        if each.length != length or each.settings.get('job') != settings.get('job'):
            raise ValueError(
                f'{first} and {path.name} do not go together: other models or options made them'
            )
    return found


def settings_of(place: Path) -> dict[str, Any]:
    """How a file or a data set was made; empty if nothing says it."""
    return read_metadata(embedding_files(place)[0])


def name_columns(names: Sequence[str]) -> list[str]:
    """The columns that name an image."""
    return ['path'] if 'path' in names else ['shard', 'key']


def names_of(table: Any) -> list[str]:
    """The names of the images of a table: paths, or `SHARD/KEY` of those in a shard."""
    if 'path' in table.column_names:
        return table['path'].to_pylist()
    both = zip(table['shard'].to_pylist(), table['key'].to_pylist(), strict=True)
    return [key if shard is None else f'{shard}/{key}' for shard, key in both]


def read_embeddings(place: str | Path) -> Embeddings:
    """Read Parquet files of embeddings; rows that repeat a path or are not finite are left out.

    They need the columns `path` (string), or `key` and `shard` (strings), and `embedding`
    (fixed-size list of floats), no metadata.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If pyarrow is missing.
        ValueError: If it is no Parquet file, lacks these columns or holds nothing.
    """
    place = Path(place)
    opened = open_files(place)
    tables = [_read(path) for path, _ in opened]
    paths = [name for table in tables for name in names_of(table)]
    if not paths:
        raise ValueError(f'{place}: no rows in it')
    vectors = np.concatenate([vectors_of(table['embedding']) for table in tables])
    first = {path: i for i, path in reversed(list(enumerate(paths)))}
    is_first = np.array([first[path] == i for i, path in enumerate(paths)])
    is_finite = np.isfinite(vectors).all(axis=1)
    keep = is_first & is_finite
    if not keep.any():
        raise ValueError(f'{place}: no embedding in it is finite')
    left_out = {
        'repeat the path of another': ~is_first,
        'have an embedding that is not finite': is_first & ~is_finite,
    }
    notes = [
        f'{place}: left out {where.sum()} of {len(paths)} rows, which {reason}, e.g. '
        f'{paths[np.flatnonzero(where)[0]]}'
        for reason, where in left_out.items()
        if where.any()
    ]
    kept = [paths[i] for i in np.flatnonzero(keep)]
    return Embeddings(place, kept, vectors[keep], opened[0][1].settings, notes)


def vectors_of(column: Any) -> np.ndarray:
    """A column of fixed-size lists as (N, C) float32."""
    chunks = column.chunks if hasattr(column, 'chunks') else [column]
    shape = -1, column.type.list_size
    found = [each.flatten().to_numpy().reshape(shape) for each in chunks]
    return np.concatenate(found or [np.empty((0, shape[1]))]).astype(np.float32)


def _read(file: Path) -> Any:
    """Read the columns of names and embeddings as a table of pyarrow."""
    pa, parquet = pyarrow(instead='')
    try:
        names = parquet.read_schema(file).names
        table = parquet.read_table(file, columns=[*name_columns(names), 'embedding'])
    except (pa.ArrowException, OSError) as error:
        raise _damaged(file, error) from None
    named = table['path' if 'path' in table.column_names else 'key']
    if named.null_count or table['embedding'].null_count:
        raise ValueError(f'{file}: a row lacks its path or its embedding')
    return table


def _damaged(file: Path, error: Exception) -> ValueError:
    return ValueError(f'{file}: no Parquet file, or a damaged one ({one_line(error)})')


def _check_kinds(pa: Any, file: Path, kinds: dict[str, Any]) -> None:
    embedding, names = kinds.get('embedding'), map(kinds.get, name_columns([*kinds]))
    is_text = all(kind is not None and _is_text(pa, kind) for kind in names)
    is_vector = embedding is not None and pa.types.is_fixed_size_list(embedding)
    if not (is_text and is_vector and pa.types.is_floating(embedding.value_type)):
        columns = ', '.join(f'{name} {kind}' for name, kind in kinds.items()) or 'nothing'
        raise ValueError(
            f'{file}: it needs the columns path (string) and embedding (fixed-size list of floats) '
            f'of tools/extract_features.py, and has {columns}'
        )


def _is_text(pa: Any, kind: Any) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
