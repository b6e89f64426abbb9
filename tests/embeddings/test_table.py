"""Reading files of embeddings: what is in them, and one line for what is wrong with them."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from vit_backbones.embeddings.table import PathFinder, read_embeddings


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
    with pytest.raises(ValueError, match=r'wants the columns path .* and has path'):
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


@pytest.mark.parametrize(
    ('path', 'found'),
    [
        ('a/b/1.png', 0),
        ('./a/b/1.png', 0),
        ('b/1.png', 0),
        ('1.png', 0),
        ('/elsewhere/a/b/1.png', 0),
        ('c/1.png', None),
        ('.png', None),
        ('a/2.png', 1),
        ('/d/2.png', 2),
    ],
)
def test_images_are_found_by_their_path_or_its_end(path, found):
    assert PathFinder(['a/b/1.png', 'a/2.png', '/d/2.png']).find(path) == found


def test_an_end_that_two_paths_have_is_an_error():
    with pytest.raises(ValueError, match=r'2\.png may be a/2\.png or b/2\.png: write more'):
        PathFinder(['a/2.png', 'b/2.png', 'b/1.png']).find('2.png')


def test_exact_paths_are_compared_from_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finder = PathFinder(['a/1.png'])
    assert finder.exact(str(tmp_path / 'a/1.png')) == 0
    assert finder.exact(Path('1.png').name) is None
