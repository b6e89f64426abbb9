"""Images in Parquet files: a column of bytes, or as Hugging Face's `datasets` writes it.

There `image` is a struct of `bytes` and `path`
(https://huggingface.co/docs/datasets/about_dataset_features#image-feature).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vit_backbones.errors import one_line, require, some
from vit_backbones.shards.contents import LARGEST, HeldFile, Sample, ShardError

_AT_ONCE = 8  # rows: a dictionary can make each of them as large as an image may be
_EXPANDED, _RATIO = 2 * 2**30, 100  # as for compressed weights


def table_samples(path: Path, column: str | None = None) -> Iterator[Sample]:
    """The images of a Parquet file, in its order; the key is the number of the row, from 0.

    Args:
        column: Of the images, bytes or a struct with `bytes`; by default `image`.

    Raises:
        ShardError: If it is damaged, has no such column or no rows.
    """
    pa, parquet = (require(name, 'Parquet', 'pyarrow') for name in ('pyarrow', 'pyarrow.parquet'))
    column = column or 'image'
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            leaf = _leaf(pa, file.schema_arrow, column)
            _check_expansion(file.metadata, leaf)
            batches = file.iter_batches(batch_size=_AT_ONCE, columns=[leaf])
            images = (image for batch in batches for image in _flat(pa, batch.column(0)))
            for row, image in enumerate(images):
                yield Sample(str(row), _content(image, row))
    except (pa.ArrowException, OSError) as error:
        raise ShardError(f'no Parquet file, or a damaged one ({one_line(error)})') from None


def _leaf(pa: Any, schema: Any, column: str) -> str:
    """The path of the bytes in the schema."""
    kind = schema.field(column).type if column in schema.names else None
    if kind is not None and _is_bytes(pa, kind):
        return column
    if kind is not None and pa.types.is_struct(kind):
        names = [each.name for each in kind]
        if 'bytes' in names and _is_bytes(pa, kind.field('bytes').type):
            return f'{column}.bytes'
    held = some(f'{each.name} {each.type}' for each in schema)
    raise ShardError(
        f'no column {column!r} of bytes, or of a struct with bytes; it has {held} (image_key=... '
        f'names another one)'
    )


def _is_bytes(pa: Any, kind: Any) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _check_expansion(metadata: Any, leaf: str) -> None:
    if not metadata.num_rows:
        raise ShardError('no rows in it')
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        chunks = map(group.column, range(group.num_columns))
        chunk = next(each for each in chunks if each.path_in_schema == leaf)
        size = chunk.total_uncompressed_size
        if size > _EXPANDED and size > _RATIO * chunk.total_compressed_size:
            raise ShardError(f'its row group {number} expands to {size} bytes')


def _flat(pa: Any, column: Any) -> Any:
    """The bytes of a column, which may be a struct of them."""
    return column.flatten()[0] if pa.types.is_struct(column.type) else column


def _content(image: Any, row: int) -> HeldFile | str:
    if not image.is_valid:
        return 'it has no bytes; paths are not followed'
    content = image.as_py()
    if len(content) > LARGEST:
        return f'{len(content)} bytes are no image: the most is {LARGEST}'
    return HeldFile(content, f'row {row}')
