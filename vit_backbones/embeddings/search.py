"""Nearest neighbours of an image."""

from typing import NamedTuple

import numpy as np

from vit_backbones.embeddings.table import Embeddings
from vit_backbones.embeddings.tiles import tile_of
from vit_backbones.pictures.canvas import Row

_COLUMNS = 5


class Neighbour(NamedTuple):
    """An image that is like another.

    Attributes:
        path: Of the image.
        similarity: Cosine of the two embeddings, -1 to 1.
    """

    path: str
    similarity: float


def nearest(embeddings: Embeddings, query: int | np.ndarray, top: int) -> list[Neighbour]:
    """The images whose embeddings have the smallest angle to that of the query.

    Args:
        embeddings: All images.
        query: One of them by its number, which is not among its own neighbours then; or the
            embedding (C,) of another image.
        top: So many at most.

    Returns:
        The most similar first.

    Raises:
        ValueError: If the query's embedding has another length or is not finite, or if there is
            no other image.
    """
    from sklearn.neighbors import NearestNeighbors

    others = np.arange(len(embeddings.paths))
    if isinstance(query, np.ndarray):
        _check(query, embeddings)
    else:
        others = np.delete(others, query)
        query = embeddings.vectors[query]
    if not len(others):
        raise ValueError(f'{embeddings.file}: no image in it besides the query')
    index = NearestNeighbors(n_neighbors=min(top, len(others)), metric='cosine')
    distances, numbers = index.fit(embeddings.vectors[others]).kneighbors(query[None])
    return [
        Neighbour(embeddings.paths[others[i]], float(1 - distance))
        for distance, i in zip(distances[0], numbers[0], strict=True)
    ]


def _check(query: np.ndarray, embeddings: Embeddings) -> None:
    if query.shape != embeddings.vectors.shape[1:]:
        raise ValueError(
            f'the embedding of the query has {query.size} numbers, those of {embeddings.file} have '
            f'{embeddings.vectors.shape[1]}: take the model that made them '
            f'({embeddings.settings.get("model", "unknown")})'
        )
    if not np.isfinite(query).all():
        raise ValueError('the embedding of the query is not finite')


def rows_of_tiles(query: str, found: list[Neighbour]) -> list[Row]:
    """The query and its neighbours for `draw_sheet`."""
    tiles = [tile_of(query, 'query', frame=True)]
    tiles += [tile_of(each.path, f'{each.similarity:.3f}') for each in found]
    return [('', tiles[i : i + _COLUMNS]) for i in range(0, len(tiles), _COLUMNS)]
