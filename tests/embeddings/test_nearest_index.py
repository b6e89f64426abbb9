"""The index of FAISS: the neighbours of the scan, in blocks, built once for the data it has."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from vit_backbones.embeddings import answers, nearest_index
from vit_backbones.embeddings.answers import Questions
from vit_backbones.embeddings.nearest_index import index_folder, index_of
from vit_backbones.embeddings.store import open_store, scan, unit


@pytest.fixture
def with_faiss():
    pytest.importorskip('faiss', reason='FAISS is not installed: requirements-optional.txt')


def vectors(number=3000, seed=0):
    """Vectors (number, 16) near a plane of 6 dimensions, half precision."""
    random = np.random.default_rng(seed)
    plane = np.random.default_rng(9).normal(size=(6, 16))
    found = random.normal(size=(number, 6)) @ plane + 0.1 * random.normal(size=(number, 16))
    return found.astype(np.float16)


@pytest.fixture
def data_set(write_embeddings):
    """A data set of three files in the current folder."""
    Path('emb').mkdir()
    parts = np.split(vectors(), [700, 1900])
    for number, part in enumerate(parts):
        names = [f'{number}/{i}.png' for i in range(len(part))]
        write_embeddings(part, names, f'emb/{number}.parquet', model='vit')
    return Path('emb')


def expected(queries, top):
    cosines = queries @ unit(vectors()).T
    order = np.argsort(-cosines, axis=1, kind='stable')[:, :top]
    return np.take_along_axis(cosines, order, axis=1), order


def test_the_scan_is_exact_across_files_and_blocks(data_set, monkeypatch):
    monkeypatch.setattr('vit_backbones.embeddings.store._ROWS', 256)
    queries = unit(vectors(5, seed=1))
    for top in (1, 10):
        cosines, rows = scan(open_store(data_set), queries, top)
        wanted, order = expected(queries, top)
        assert np.array_equal(rows, order)
        assert np.abs(cosines - wanted).max() < 1e-6
    assert scan(open_store(data_set), queries, 9999)[1].shape == (5, 3000)


def test_rows_have_their_names_and_are_found_by_them(data_set):
    store = open_store(data_set)
    assert store.names([0, 699, 700, 1899, 1900, 2999]) == [
        '0/0.png',
        '0/699.png',
        '1/0.png',
        '1/1199.png',
        '2/0.png',
        '2/1099.png',
    ]
    assert store.find('1/7.png') == 707
    assert store.find(os.path.abspath('1/7.png')) == 707
    assert store.find('./1/7.png') == 707
    assert store.find('7.png') is None
    assert np.allclose(store.vector(707), unit(vectors()[707:708])[0])


@pytest.mark.parametrize('block', [2**30, 1000 * 32])
def test_the_index_finds_what_the_scan_finds(block, data_set, monkeypatch, with_faiss, capfd):
    monkeypatch.setattr(nearest_index, '_BLOCK', block)
    monkeypatch.setattr('vit_backbones.embeddings.store._ROWS', 256)
    store = open_store(data_set)
    found = index_of(store)
    assert found.built
    assert (found.record['rows'], found.record['cells']) == (3000, 55)
    assert 1 < found.record['searched'] < 55
    assert found.record['recall'] >= 0.95
    queries = unit(vectors(200, seed=1))
    cosines, rows = found.search(queries, 10)
    wanted, order = expected(queries, 10)
    shared = [len({*a} & {*b}) for a, b in zip(rows.tolist(), order.tolist(), strict=True)]
    assert sum(shared) / 2000 >= 0.93
    assert np.abs(cosines[:, 0] - wanted[:, 0]).mean() < 2e-3
    assert sorted(os.listdir('emb/_index')) == ['cells.faiss', 'record.json', 'rows.ivfdata']
    assert capfd.readouterr() == ('', '')


def test_an_index_is_kept_while_the_data_are_the_same(data_set, write_embeddings, with_faiss):
    before = index_of(open_store(data_set))
    again = index_of(open_store(data_set))
    assert (before.built, again.built, again.record) == (True, False, before.record)
    assert again.line.startswith('index of 3000 images: ')
    shutil.move('emb', 'moved')
    moved = index_of(open_store('moved'))
    assert not moved.built
    query = unit(vectors(1, seed=1))
    assert np.array_equal(moved.search(query, 3)[1], before.search(query, 3)[1])
    write_embeddings(vectors(50, seed=2), name='moved/3.parquet', model='vit')
    other = index_of(open_store('moved'))
    assert (other.built, other.record['rows']) == (True, 3050)


def test_a_stopped_build_leaves_no_index(data_set, monkeypatch, with_faiss):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(nearest_index, '_tune', stop)
        with pytest.raises(KeyboardInterrupt):
            index_of(open_store(data_set))
    assert sorted(os.listdir('emb')) == ['0.parquet', '1.parquet', '2.parquet']
    assert index_of(open_store(data_set)).built


def test_a_file_has_its_index_beside_it(write_embeddings, with_faiss):
    file = write_embeddings(vectors(500))
    index_of(open_store(file))
    assert index_folder(file) == Path('file.parquet.index')
    assert Path('file.parquet.index/record.json').is_file()


def test_a_search_says_how_far_to_trust_it(data_set, monkeypatch, with_faiss):
    monkeypatch.setattr(answers, 'MOST', 1000)
    first, *lines = answers.answers(Questions(search='1/7.png', top=4), data_set)
    assert first.startswith('index of 3000 images: built in ')
    assert ' of 55 cells are searched, and find 0.9' in first
    wanted, order = expected(unit(vectors()[707:708]), 5)
    names = open_store(data_set).names(order[0, 1:])
    assert [line.split()[2] for line in lines[:-1]] == names
    assert [line.split()[1] for line in lines[:-1]] == [f'{each:.3f}' for each in wanted[0, 1:]]
    assert lines[-1] == 'written: emb.search.png'
    first, *_ = answers.answers(Questions(search='1/7.png'), data_set)
    assert 'built' not in first


def test_rows_that_are_not_finite_are_near_nothing(write_embeddings):
    broken = vectors(20)
    broken[3] = np.inf
    store = open_store(write_embeddings(broken))
    cosines, rows = scan(store, unit(broken[:1]), 20)
    assert cosines[0, rows[0].tolist().index(3)] == 0
    assert np.isfinite(cosines).all()
