"""Embeddings in two dimensions, compared with the libraries."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.decomposition import PCA

from vit_backbones.embeddings.projecting import project
from vit_backbones.features.embedding_tables import read_embeddings


@pytest.fixture
def embeddings(write_embeddings, grouped_vectors):
    return read_embeddings(write_embeddings(grouped_vectors[0]))


def unit(embeddings):
    return embeddings.vectors / np.linalg.norm(embeddings.vectors, axis=1, keepdims=True)


def test_pca_sees_vectors_of_length_one(embeddings):
    assert np.allclose(
        project(embeddings, 'pca'), PCA(2).fit_transform(unit(embeddings)), atol=1e-5
    )


@pytest.fixture
def stand_in():
    """A class in place of t-SNE's or UMAP's, and what it was asked for."""
    asked = {}

    def model(**options):
        asked.update(options)
        return SimpleNamespace(fit_transform=lambda vectors: vectors[:, :2])

    return model, asked


def test_tsne_sees_principal_components_and_a_perplexity_that_fits(
    embeddings, stand_in, monkeypatch
):
    model, asked = stand_in
    monkeypatch.setattr('sklearn.manifold.TSNE', model)
    components = PCA(4).fit_transform(unit(embeddings))
    assert np.allclose(project(embeddings, 'tsne'), components[:, :2], atol=1e-5)
    assert asked == dict(perplexity=11 / 3, random_state=0)


def test_tsne_of_the_fewest_images(write_embeddings):
    points = project(read_embeddings(write_embeddings(np.eye(4))), 'tsne')
    assert points.shape == (4, 2)
    assert np.isfinite(points).all()


def test_umap_gets_as_many_neighbours_as_there_are(embeddings, stand_in, monkeypatch):
    model, asked = stand_in
    monkeypatch.setitem(sys.modules, 'umap', SimpleNamespace(UMAP=model))
    assert np.allclose(project(embeddings, 'umap'), unit(embeddings)[:, :2])
    assert asked == dict(n_neighbors=11, random_state=0, n_jobs=1)


def test_without_umap_the_way_out_is_told(embeddings, monkeypatch):
    monkeypatch.setitem(sys.modules, 'umap', None)
    fix = r'plot=umap needs umap-learn: pip install vit_backbones\[umap\]; or take plot=tsne'
    with pytest.raises(ImportError, match=fix):
        project(embeddings, 'umap')


@pytest.mark.parametrize('vectors', [np.eye(3), np.eye(3)[[0, 1, 2, 0, 1]]])
def test_fewer_than_four_images_that_differ_are_told(vectors, write_embeddings):
    with pytest.raises(
        ValueError, match=r'plot=\.\.\. needs 4 images that differ: file\.parquet has 3'
    ):
        project(read_embeddings(write_embeddings(vectors)), 'pca')
