"""Files of features: write them a bit at a time, and read their metadata back.

- `.parquet`: one row per image, in the order of the inputs: `path` (string, as it was found),
  `height` and `width` (int32, as the image is shown, before resizing) and `embedding` (list of
  fixed size, of float32 or float16; several layers joined).
- `.npz`, `.safetensors`: one array per image, `PATH`, or `PATH:LAYER` with several layers:
  (C, h, w), (P + h*w, C) or (C,).

All of them hold a JSON text named `vit_backbones` (Parquet and safetensors in their metadata, .npz
as an array): model, source, weights, layers, dims of each layer, pool (or out_type), strides,
num_prefix_tokens, size, mean, std, normalised, dtype, device, version, and the fingerprint `job`.
"""

import itertools
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from vit_backbones.errors import require
from vit_backbones.features.plan import Item
from vit_backbones.files import json_of

KEY = 'vit_backbones'  # name of the metadata
_ROWS = 4096  # per row group
_HEADER = 100_000_000  # bytes, the limit of safetensors
_ENTRY = 112  # bytes of it that an array takes beside its path, at most
_FOREIGN = (EOFError, KeyError, OSError, SafetensorError, TypeError, ValueError, zipfile.BadZipFile)


class Rows(NamedTuple):
    """The features of all images, in the order in which they are written.

    `arrays` gives those of an image, one per output, and `shapes` their shapes. `names` of outputs
    follow the path in keys; there are none for a single output.
    """

    items: Sequence[Item]
    names: Sequence[str]
    arrays: Callable[[Item], list[np.ndarray]]
    shapes: Callable[[Item], list[list[int]]]
    dtype: np.dtype

    def keyed(self, item: Item, values: Sequence[Any]) -> Iterator[tuple[str, Any]]:
        """Pair the values of an image's outputs with their keys."""
        names = [f':{name}' for name in self.names] or ['']
        return ((item.path + name, value) for name, value in zip(names, values, strict=True))


def write_parquet(path: Path, rows: Rows, metadata: dict[str, Any]) -> None:
    """Write one vector per image in the columns `path`, `height`, `width` and `embedding`."""
    pa, parquet = pyarrow()
    (length,) = rows.shapes(rows.items[0])[0]
    element = pa.from_numpy_dtype(rows.dtype)
    kinds = (pa.string(), pa.int32(), pa.int32(), pa.list_(element, length))
    schema = pa.schema(
        zip(('path', 'height', 'width', 'embedding'), kinds, strict=True),
        metadata={KEY: json.dumps(metadata)},
    )
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, len(rows.items), _ROWS):
            items = rows.items[start : start + _ROWS]
            values = np.concatenate([rows.arrays(item)[0] for item in items])
            columns = [
                pa.array([item.path for item in items]),
                pa.array([item.shown[0] for item in items], pa.int32()),
                pa.array([item.shown[1] for item in items], pa.int32()),
                pa.FixedSizeListArray.from_arrays(pa.array(values, element), length),
            ]
            writer.write_table(pa.table(columns, schema=schema))


def write_npz(path: Path, rows: Rows, metadata: dict[str, Any]) -> None:
    """Write one array per image and output, and the metadata as an array."""
    own = [(KEY, np.array(json.dumps(metadata)))]
    arrays = ((item, rows.arrays(item)) for item in rows.items)
    keyed = itertools.chain.from_iterable(rows.keyed(*each) for each in arrays)
    with zipfile.ZipFile(path, 'w') as archive:
        for key, array in itertools.chain(own, keyed):
            entry = zipfile.ZipInfo(f'{key}.npy')  # with a fixed date: equal files are equal
            with archive.open(entry, 'w', force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def write_safetensors(path: Path, rows: Rows, metadata: dict[str, Any]) -> None:
    """Write one tensor per image and output, and the metadata.

    The layout is that of https://github.com/huggingface/safetensors: the length of the header, the
    header in JSON, the bytes. The library's own writer needs all tensors in memory.
    """
    header: dict[str, Any] = {'__metadata__': {KEY: json.dumps(metadata)}}
    kind, end = {2: 'F16', 4: 'F32'}[rows.dtype.itemsize], 0
    for item in rows.items:
        for key, shape in rows.keyed(item, rows.shapes(item)):
            start, end = end, end + int(np.prod(shape)) * rows.dtype.itemsize
            header[key] = {'dtype': kind, 'shape': shape, 'data_offsets': [start, end]}
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    with path.open('wb') as file:
        file.write(len(text).to_bytes(8, 'little') + text)
        for item in rows.items:
            for array in rows.arrays(item):
                file.write(np.ascontiguousarray(array).tobytes())


def check_header(items: Iterable[Item], names: Sequence[str]) -> None:
    """Refuse arrays whose names may exceed the 100 MB of a header that the library reads."""
    keys = sum(len(json.dumps(item.path)) + _ENTRY for item in items) * (len(names) or 1)
    if keys > _HEADER:
        raise ValueError('.safetensors holds no more than 100 MB of names: write .npz')


WRITERS: dict[str, Callable[[Path, Rows, dict[str, Any]], None]] = {
    '.parquet': write_parquet,
    '.npz': write_npz,
    '.safetensors': write_safetensors,
}


def read_metadata(path: Path) -> dict[str, Any]:
    """Read the metadata of a file of features; empty for other files."""
    try:
        return json_of(_READERS[path.suffix](path), path, dict)
    except _FOREIGN:
        return {}


def _of_parquet(path: Path) -> bytes:
    return pyarrow()[1].read_schema(path).metadata[KEY.encode()]


def _of_npz(path: Path) -> str:
    with np.load(path) as file:
        return str(file[KEY])


def _of_safetensors(path: Path) -> str:
    with safe_open(path, framework='numpy') as file:
        return file.metadata()[KEY]


_READERS = {'.parquet': _of_parquet, '.npz': _of_npz, '.safetensors': _of_safetensors}


def pyarrow(instead: str = 'write .npz') -> tuple[ModuleType, ModuleType]:
    """Import pyarrow and its module for Parquet, or raise an ImportError with the fix."""
    names = ('pyarrow', 'pyarrow.parquet')
    return tuple(require(name, 'Parquet', 'pyarrow', instead=instead) for name in names)
