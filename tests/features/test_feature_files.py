"""Files of features: each format's own reader reads them, and embeddings are read back."""

import sys

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from safetensors.numpy import load_file

from vit_backbones.features import feature_files as outputs
from vit_backbones.features.embedding_tables import read_embeddings
from vit_backbones.features.feature_files import WRITERS, Rows, read_metadata
from vit_backbones.features.plan import Item


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
    table = parquet.read_table(tmp_path / 'a.parquet')
    assert parquet.ParquetFile(tmp_path / 'a.parquet').num_row_groups == 3
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


# Reading


@pytest.mark.parametrize('kind', [np.float16, np.float32])
def test_rows_are_read_in_their_order(kind, write_embeddings):
    vectors = np.random.default_rng(0).normal(size=(5, 3)).astype(kind)
    read = read_embeddings(write_embeddings(vectors, list('ecabd'), model='vit', pool='cls'))
    assert read.paths == list('ecabd')
    assert read.vectors.dtype == np.float32
    assert np.array_equal(read.vectors, vectors.astype(np.float32))
    assert read.settings == dict(model='vit', pool='cls')
    assert read.notes == []


def test_a_file_without_metadata_is_read(write_embeddings):
    assert read_embeddings(write_embeddings(np.ones((2, 3)))).settings == {}


def test_several_row_groups_are_one_table(write_embeddings):
    vectors = np.random.default_rng(0).normal(size=(7, 3))
    file = write_embeddings(vectors)
    parquet.write_table(parquet.read_table(file), file, row_group_size=2)
    assert np.allclose(read_embeddings(file).vectors, vectors)


def test_repeated_paths_and_infinite_rows_are_left_out_and_told(write_embeddings):
    vectors = np.arange(15.0).reshape(5, 3)
    vectors[1, 2] = np.nan
    vectors[3, 0] = np.inf
    read = read_embeddings(write_embeddings(vectors, ['a', 'b', 'a', 'c', 'd']))
    assert read.paths == ['a', 'd']
    assert np.array_equal(read.vectors, vectors[[0, 4]])
    repeated, infinite = read.notes
    assert (
        repeated == 'file.parquet: left out 1 of 5 rows, which repeat the path of another, e.g. a'
    )
    assert 'left out 2 of 5 rows' in infinite
    assert infinite.endswith('not finite, e.g. b')


def test_nothing_finite_is_an_error(write_embeddings):
    with pytest.raises(ValueError, match=r'file\.parquet: no embedding in it is finite'):
        read_embeddings(write_embeddings(np.full((2, 3), np.nan)))


def test_no_rows_are_an_error(write_embeddings):
    with pytest.raises(ValueError, match=r'file\.parquet: no rows'):
        read_embeddings(write_embeddings(np.empty((0, 3))))


def test_a_missing_file_is_told_how_to_write_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'x\.parquet does not exist; .*extract_features'):
        read_embeddings(tmp_path / 'x.parquet')


@pytest.mark.parametrize('damage', [lambda b: b'PAR1', lambda b: b[:99], lambda b: b[:4] * 99])
def test_a_damaged_file_is_told(damage, write_embeddings):
    file = write_embeddings(np.ones((9, 3)))
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=r'file\.parquet: no Parquet file, or a damaged one'):
        read_embeddings(file)


@pytest.mark.parametrize(
    'columns',
    [
        dict(path=['a']),
        dict(path=['a'], embedding=[[1.0, 2.0]]),
        dict(path=[1], embedding=pa.array([[1.0]], pa.list_(pa.float32(), 1))),
        dict(path=['a'], embedding=pa.array([[1]], pa.list_(pa.int32(), 1))),
    ],
)
def test_other_columns_are_told(columns, tmp_path):
    parquet.write_table(pa.table(columns), tmp_path / 'x.parquet')
    with pytest.raises(ValueError, match=r'it needs the columns path .* and has path'):
        read_embeddings(tmp_path / 'x.parquet')


def test_missing_values_are_an_error(tmp_path):
    vectors = pa.array([[1.0], None], pa.list_(pa.float32(), 1))
    parquet.write_table(pa.table(dict(path=['a', 'b'], embedding=vectors)), tmp_path / 'x.parquet')
    with pytest.raises(ValueError, match='a row lacks its path or its embedding'):
        read_embeddings(tmp_path / 'x.parquet')


def test_without_pyarrow_the_fix_is_told(write_embeddings, monkeypatch):
    file = write_embeddings(np.ones((2, 3)))
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    with pytest.raises(ImportError, match=r'needs pyarrow: pip install vit_backbones\[tools\]'):
        read_embeddings(file)
