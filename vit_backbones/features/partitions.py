"""A data set of embeddings: a Parquet file for each shard, each of them whole or absent.

Columns: `key` (string; of a sample in a tar file, the number of a row in a Parquet file, the path
of a file), `shard` (string, the tar or Parquet file as it was found; null for files), `height` and
`width` (int32, as the image is shown) and `embedding` (list of fixed size, of float32 or float16).
The metadata of each file hold the JSON text `vit_backbones` of `feature_files`, with `shard` (name,
bytes and time of the source) and `counts` (`images`, `unreadable`, `deep`) beside.

Names with `_` in front are left out by readers of Parquet folders: `_settings.json`, by which
another model or other options are refused, and `_unreadable/NAME.txt`.
"""

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_backbones.features.feature_files import KEY, pyarrow, read_metadata
from vit_backbones.features.plan import Item
from vit_backbones.files import json_of, write_whole
from vit_backbones.shards.contents import SETTINGS
from vit_backbones.shards.found import Shard

_ROWS = 4096  # per row group
_SAID = dict(job='the fingerprint of weights and options')
_OLD = 3600  # seconds after which a draft is that of a killed process


class Embedded(NamedTuple):
    """The images of a shard, with an embedding (C,) each, in their order."""

    keys: Sequence[str]
    items: Sequence[Item]
    vectors: np.ndarray


class Partitions:
    """The folder of a data set, made with some settings; several processes may write into it.

    Args:
        folder: Made if it is missing.
        settings: Of the features, as JSON holds them.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder, self.settings = folder, json.loads(json.dumps(settings))

    def start(self, overwrite: bool) -> None:
        """Take over the folder; files of other settings are removed with `overwrite`, else refused.

        Raises:
            ValueError: If it was made with other settings, or holds Parquet files without any.
        """
        record = self.folder / SETTINGS
        if record.exists() and self._same(record, overwrite):
            self._remove_drafts()
            return
        found = sorted(self.folder.glob('*.parquet'))
        if found and not record.exists() and not overwrite:
            raise ValueError(
                f'{self.folder} holds {found[0].name} and no {SETTINGS}: it is no data set of '
                f'embeddings; choose another out=..., or overwrite=True removes its .parquet files'
            )
        for path in found:
            if not self._is_ours(path):
                path.unlink(missing_ok=True)  # another process may have been faster
        content = json.dumps(self.settings, indent=1) + '\n'
        write_whole(record, content.encode())

    def _same(self, record: Path, overwrite: bool) -> bool:
        noted = json_of(record.read_bytes(), record, dict)
        if noted.get('job') == self.settings['job']:
            return True
        if not overwrite:
            keys = sorted(self.settings, key='job'.__eq__)  # it says the least
            key = next(key for key in keys if noted.get(key) != self.settings[key])
            raise ValueError(
                f'{self.folder} was made with {_SAID.get(key, key)}={noted.get(key)}, now it is '
                f'{self.settings[key]}: repeat the options it was made with, choose another '
                f'out=..., or start anew with overwrite=True'
            )
        return False

    def _remove_drafts(self) -> None:
        for path in self.folder.glob('.*'):
            if path.is_file() and time.time() - path.stat().st_mtime > _OLD:
                path.unlink(missing_ok=True)

    def path(self, shard: Shard) -> Path:
        """The file of a shard."""
        return self.folder / f'{shard.name}.parquet'

    def listed(self, shard: Shard) -> Path:
        """The list of what cannot be read in a shard."""
        return self.folder / '_unreadable' / f'{shard.name}.txt'

    def counts(self, shard: Shard, overwrite: bool) -> dict[str, int] | None:
        """Counts of a shard that is done; `None` if it is missing.

        Raises:
            OSError: If the shard's own file is gone.
            ValueError: If its file was made of another shard; with `overwrite` it is missing.
        """
        path = self.path(shard)
        if not path.exists():
            return None
        noted = read_metadata(path)
        if noted.get('shard') == shard.stamp() and self._is_ours(path):
            return noted['counts']
        if overwrite:
            return None
        raise ValueError(
            f'{path} was made of another {shard.source or "group of images"} (size, time or names '
            f'differ): choose another out=..., or replace it with overwrite=True'
        )

    def _is_ours(self, path: Path) -> bool:
        return read_metadata(path).get('job') == self.settings['job']

    def write(self, shard: Shard, found: Embedded, noted: dict[str, Any]) -> None:
        """Write the file of a shard; `noted` has its stamp as `shard`, and `counts`."""
        write_whole(self.path(shard), _parquet(shard, found, self.settings | noted))

    def write_list(self, shard: Shard, lines: Iterable[str]) -> None:
        """List what could not be read, or remove an old list if all could."""
        text = ''.join(f'{line}\n' for line in lines)
        if text:
            write_whole(self.listed(shard), text.encode(errors='surrogateescape'))
        else:
            self.listed(shard).unlink(missing_ok=True)


def _parquet(shard: Shard, found: Embedded, metadata: dict[str, Any]) -> bytes:
    pa, parquet = pyarrow(instead='')
    values, sides = found.vectors, [item.shown for item in found.items]
    element, length = pa.from_numpy_dtype(values.dtype), values.shape[1]
    source = None if shard.source is None else str(shard.source)
    columns = dict(
        key=pa.array([found.keys[item.index] for item in found.items], pa.string()),
        shard=pa.array([source] * len(sides), pa.string()),
        height=pa.array([height for height, _ in sides], pa.int32()),
        width=pa.array([width for _, width in sides], pa.int32()),
        embedding=pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), element), length),
    )
    table = pa.table(columns).replace_schema_metadata({KEY: json.dumps(metadata)})
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink, row_group_size=_ROWS, use_dictionary=['shard'])
    return sink.getvalue().to_pybytes()
