"""Nearest neighbours, compared with cosines written out, and images by their path."""

from pathlib import Path

import numpy as np
import pytest

from vit_backbones.embeddings.search import PathFinder, nearest, rows_of_tiles
from vit_backbones.features.embedding_tables import read_embeddings


def cosines(vectors, query):
    return vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)


@pytest.fixture
def embeddings(write_embeddings):
    return read_embeddings(
        write_embeddings(np.random.default_rng(0).normal(size=(9, 5)), model='vit')
    )


def test_neighbours_are_those_of_largest_cosine(embeddings):
    query = np.random.default_rng(1).normal(size=5)
    expected = cosines(embeddings.vectors, query)
    found = nearest(embeddings, query, 4)
    assert [each.path for each in found] == [f'images/{i}.png' for i in np.argsort(-expected)[:4]]
    assert np.allclose([each.similarity for each in found], np.sort(expected)[::-1][:4], atol=1e-6)


def test_an_image_is_not_its_own_neighbour(embeddings):
    expected = cosines(embeddings.vectors, embeddings.vectors[3])
    order = [i for i in np.argsort(-expected) if i != 3]
    found = nearest(embeddings, 3, 100)
    assert [each.path for each in found] == [f'images/{i}.png' for i in order]


def test_a_single_image_has_no_neighbours(write_embeddings):
    with pytest.raises(ValueError, match='no image in it besides the query'):
        nearest(read_embeddings(write_embeddings(np.ones((1, 3)))), 0, 4)


def test_a_query_of_another_model_is_told(embeddings):
    with pytest.raises(ValueError, match=r'has 4 numbers, .* have 5: take the model .*\(vit\)'):
        nearest(embeddings, np.ones(4), 4)


def test_an_infinite_query_is_told(embeddings):
    with pytest.raises(ValueError, match='query is not finite'):
        nearest(embeddings, np.full(5, np.inf), 4)


def test_the_query_stands_first_and_framed(embeddings):
    rows = rows_of_tiles('q.png', nearest(embeddings, 0, 6))
    tiles = [tile for _, tiles in rows for tile in tiles]
    assert [len(tiles) for _, tiles in rows] == [5, 2]
    assert [tile.frame for tile in tiles] == [True] + [False] * 6
    assert tiles[0].name == 'q.png'
    assert tiles[1].caption == f'{nearest(embeddings, 0, 1)[0].similarity:.3f}'


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
