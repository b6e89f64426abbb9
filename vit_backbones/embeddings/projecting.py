"""Embeddings projected to two dimensions."""

from collections.abc import Callable

import numpy as np

from vit_backbones.errors import require
from vit_backbones.features.embedding_tables import Embeddings

_SEED = 0
_FEWEST = 4  # images that differ
_COMPONENTS = 50  # input of t-SNE, as scikit-learn's documentation advises


def project(embeddings: Embeddings, method: str) -> np.ndarray:
    """Project embeddings to (N, 2) float32 by `'pca'`, `'tsne'` or `'umap'`, with a fixed seed.

    They get length 1 first, so that distances go by angles; t-SNE sees their principal components.
    """
    from sklearn.preprocessing import normalize

    unit = normalize(embeddings.vectors)
    differ = len(np.unique(unit, axis=0))
    if differ < _FEWEST:
        raise ValueError(
            f'plot=... needs {_FEWEST} images that differ: {embeddings.file} has {differ}'
        )
    methods: dict[str, Callable[[np.ndarray], np.ndarray]] = dict(pca=_pca, tsne=_tsne, umap=_umap)
    return methods[method](unit)


def _pca(unit: np.ndarray, num_components: int = 2) -> np.ndarray:
    from sklearn.decomposition import PCA

    return PCA(min(num_components, *unit.shape), random_state=_SEED).fit_transform(unit)


def _tsne(unit: np.ndarray) -> np.ndarray:
    from sklearn.manifold import TSNE

    perplexity = min(30, (len(unit) - 1) / 3)  # sklearn's default, which needs more images
    return TSNE(perplexity=perplexity, random_state=_SEED).fit_transform(_pca(unit, _COMPONENTS))


def _umap(unit: np.ndarray) -> np.ndarray:
    neighbours = min(15, len(unit) - 1)  # umap-learn's default, which needs more images
    model = require_umap().UMAP(n_neighbors=neighbours, random_state=_SEED, n_jobs=1)
    return model.fit_transform(unit)


def require_umap() -> object:
    """Import umap-learn, or raise an ImportError with the fix."""
    return require('umap', 'plot=umap', 'umap-learn', instead='take plot=tsne', extra='umap')
