"""Writing features a bit at a time; the file's own readers read them."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from vit_backbones.features import stored as outputs
from vit_backbones.features.plan import Item
from vit_backbones.features.stored import WRITERS, Rows, read_metadata

pq = pytest.importorskip('pyarrow.parquet')


def rows(number=5, names=(), dtype=np.float32):
    """Vectors of 4 numbers."""
    items = [Item(i, f'{i}.png', (i + 1, i + 2), (16, 16)) for i in range(number)]
    count = len(names) or 1
    return Rows(
        items,
        names,
        lambda item: [np.full(4, 10 * item.index + k, dtype) for k in range(count)],
        lambda item: [[4]] * count,
        np.dtype(dtype),
    )


@pytest.mark.parametrize('dtype', [np.float32, np.float16])
def test_parquet_by_row_groups(dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, '_ROWS', 2)
    outputs.write_parquet(tmp_path / 'a.parquet', rows(dtype=dtype), {})
    table = pq.read_table(tmp_path / 'a.parquet')
    assert pq.ParquetFile(tmp_path / 'a.parquet').num_row_groups == 3
    assert table['embedding'].type.value_type == outputs.pyarrow()[0].from_numpy_dtype(dtype)
    assert table['embedding'].to_pylist() == [[10.0 * i] * 4 for i in range(5)]
    assert table['height'].to_pylist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize('suffix', ['.npz', '.safetensors'])
@pytest.mark.parametrize('dtype', [np.float32, np.float16])
def test_arrays_are_read_by_the_formats_own_readers(suffix, dtype, tmp_path):
    path = tmp_path / f'a{suffix}'
    WRITERS[suffix](path, rows(2, ['3', '7'], dtype), {})
    got = dict(np.load(path)) if suffix == '.npz' else load_file(path)
    got.pop('vit_backbones', None)
    assert {key: value.tolist() for key, value in got.items()} == {
        '0.png:3': [0] * 4,
        '0.png:7': [1] * 4,
        '1.png:3': [10] * 4,
        '1.png:7': [11] * 4,
    }
    assert {value.dtype for value in got.values()} == {np.dtype(dtype)}


def test_a_header_that_the_library_does_not_read_is_refused(tmp_path, monkeypatch):
    few = rows(2, ['3', '7'])
    outputs.write_safetensors(tmp_path / 'a.safetensors', few, {})
    header = int.from_bytes((tmp_path / 'a.safetensors').read_bytes()[:8], 'little')
    monkeypatch.setattr(outputs, '_HEADER', header - 100)
    with pytest.raises(ValueError, match='no more than 100 MB of names'):
        outputs.check_header(few.items, few.names)
    monkeypatch.undo()
    outputs.check_header(few.items, few.names)


@pytest.mark.parametrize('suffix', WRITERS)
def test_metadata_are_read_back(suffix, tmp_path):
    path, told = tmp_path / f'a{suffix}', {'model': 'é', 'layers': [1, 2]}
    WRITERS[suffix](path, rows(), told)
    assert read_metadata(path) == told


@pytest.mark.parametrize('suffix', WRITERS)
@pytest.mark.parametrize('content', [b'', b'nothing of the kind'])
def test_foreign_files_have_none(suffix, content, tmp_path):
    path = tmp_path / f'a{suffix}'
    path.write_bytes(content)
    assert read_metadata(path) == {}


@pytest.mark.parametrize('suffix', WRITERS)
def test_a_full_disk_is_told(suffix, tmp_path):
    (tmp_path / f'a{suffix}').symlink_to('/dev/full')
    with pytest.raises(OSError, match=r'No space left|Errno 28'):
        WRITERS[suffix](tmp_path / f'a{suffix}', rows(), {})
