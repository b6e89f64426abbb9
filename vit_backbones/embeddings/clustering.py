"""Groups of images that are alike, by k-means."""

import csv
import io
from typing import NamedTuple

import numpy as np

from vit_backbones.embeddings.tiles import tile_of
from vit_backbones.features.embedding_tables import Embeddings
from vit_backbones.pictures.canvas import Row

_SEED = 0
_TILES, _ROWS = 8, 50  # images of a cluster, and clusters, in the picture
_SILHOUETTE_IMAGES = 5000  # it compares each with each


class Clusters(NamedTuple):
    """Groups of images, the largest first.

    Attributes:
        labels: (N,) int, the cluster of each image.
        central: Numbers of the images of each cluster, the most central first.
        silhouette: -1 to 1; near 1 the clusters lie apart, at 0 they overlap; NaN if a sample of
            5000 images is in one cluster.
    """

    labels: np.ndarray
    central: list[np.ndarray]
    silhouette: float


def cluster(embeddings: Embeddings, num_clusters: int) -> Clusters:
    """Group images by k-means on embeddings of length 1, with a fixed seed."""
    from sklearn.cluster import KMeans
    from sklearn.preprocessing import normalize

    unit = normalize(embeddings.vectors)
    _check(embeddings, unit, num_clusters)
    found = KMeans(num_clusters, n_init=10, random_state=_SEED).fit(unit)
    by_size = np.argsort(-np.bincount(found.labels_), kind='stable')
    labels = np.argsort(by_size)[found.labels_]
    nearness = (unit * normalize(found.cluster_centers_)[found.labels_]).sum(axis=1)
    order = np.argsort(-nearness, kind='stable')
    central = [order[labels[order] == i] for i in range(num_clusters)]
    return Clusters(labels, central, _silhouette(unit, labels))


def _silhouette(unit: np.ndarray, labels: np.ndarray) -> float:
    from sklearn.metrics import silhouette_score

    sample = np.random.default_rng(_SEED).permutation(len(unit))[:_SILHOUETTE_IMAGES]
    if len(np.unique(labels[sample])) < 2:  # the other clusters are tiny
        return float('nan')
    return float(silhouette_score(unit[sample], labels[sample]))


def _check(embeddings: Embeddings, unit: np.ndarray, num_clusters: int) -> None:
    most = min(len(np.unique(unit, axis=0)), len(unit) - 1)
    if num_clusters > most:
        allowed = (
            f'must be from 2 to {most} here' if most >= 2 else 'needs 3 images, 2 of them different'
        )
        raise ValueError(
            f'cluster={num_clusters} {allowed}; images in {embeddings.file}: {len(unit)}'
        )


def as_csv(embeddings: Embeddings, clusters: Clusters) -> bytes:
    """Write a table with the columns `path` and `cluster`, in the order of the file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(('path', 'cluster'))
    writer.writerows(zip(embeddings.paths, clusters.labels.tolist(), strict=True))
    return text.getvalue().encode()


def rows_of_tiles(embeddings: Embeddings, clusters: Clusters) -> list[Row]:
    """The most central images of the clusters, at most the 50 largest, for `draw_sheet`."""
    return [
        (
            f'cluster {i}: {len(members)} image{"s" * (len(members) > 1)}',
            [tile_of(embeddings.paths[member]) for member in members[:_TILES]],
        )
        for i, members in enumerate(clusters.central[:_ROWS])
    ]
