"""Clusters: known groups are found, the most central images come first."""

import csv
import io

import numpy as np
import pytest
from sklearn.metrics import silhouette_score

from vit_backbones.embeddings import clustering
from vit_backbones.embeddings.clustering import as_csv, cluster, rows_of_tiles
from vit_backbones.features.embedding_tables import read_embeddings


@pytest.fixture
def embeddings(write_embeddings, grouped_vectors):
    return read_embeddings(write_embeddings(grouped_vectors[0]))


def test_groups_are_found_by_direction_and_numbered_by_size(embeddings, grouped_vectors):
    assert np.array_equal(cluster(embeddings, 3).labels, grouped_vectors[1])


def test_the_most_central_images_come_first(embeddings, grouped_vectors):
    vectors, numbers = grouped_vectors
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for number, members in enumerate(cluster(embeddings, 3).central):
        expected = np.flatnonzero(numbers == number)
        nearness = unit[expected] @ unit[expected].mean(axis=0)
        assert members.tolist() == expected[np.argsort(-nearness)].tolist()


def test_the_silhouette_is_that_of_vectors_of_length_one(embeddings, grouped_vectors):
    vectors, numbers = grouped_vectors
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert cluster(embeddings, 3).silhouette == pytest.approx(
        silhouette_score(unit, numbers), abs=1e-6
    )


def test_a_sample_of_one_cluster_has_no_silhouette(write_embeddings, monkeypatch):
    vectors = np.eye(2).repeat([40, 1], axis=0) + np.linspace(0, 0.01, 82).reshape(41, 2)
    monkeypatch.setattr(clustering, '_SILHOUETTE_IMAGES', 3)
    assert np.isnan(cluster(read_embeddings(write_embeddings(vectors)), 2).silhouette)


def test_the_table_has_each_image_once_in_the_order_of_the_file(embeddings, grouped_vectors):
    rows = list(csv.DictReader(io.StringIO(as_csv(embeddings, cluster(embeddings, 3)).decode())))
    assert [row['path'] for row in rows] == embeddings.paths
    assert [int(row['cluster']) for row in rows] == grouped_vectors[1].tolist()


def test_the_picture_has_a_row_for_each_cluster(embeddings):
    titles = [title for title, _ in rows_of_tiles(embeddings, cluster(embeddings, 3))]
    assert titles == [f'cluster {i}: {n} images' for i, n in enumerate((6, 4, 2))]


@pytest.mark.parametrize(
    ('vectors', 'asked', 'message'),
    [
        (np.eye(4), 4, 'must be from 2 to 3 here; images in file.parquet: 4'),
        (np.eye(3)[[0, 1, 0, 1]], 3, 'must be from 2 to 2 here'),
        (np.eye(2), 2, 'needs 3 images, 2 of them different; images in file.parquet: 2'),
        (np.ones((5, 2)), 2, 'needs 3 images, 2 of them different'),
    ],
)
def test_too_few_images_are_told(vectors, asked, message, write_embeddings):
    with pytest.raises(ValueError, match=f'cluster={asked} {message}'):
        cluster(read_embeddings(write_embeddings(vectors)), asked)
