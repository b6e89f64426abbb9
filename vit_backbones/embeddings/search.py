"""Find images: the nearest neighbours of one, and images by the end of their path."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_backbones.embeddings.tiles import tile_of
from vit_backbones.features.embedding_tables import Embeddings
from vit_backbones.pictures.canvas import Row

_COLUMNS = 5


class Neighbour(NamedTuple):
    """An image near another, and the cosine of the two embeddings, -1 to 1."""

    path: str
    similarity: float


def nearest(embeddings: Embeddings, query: int | np.ndarray, top: int) -> list[Neighbour]:
    """Find up to `top` images with the smallest angle to the query, the most similar first.

    `query` is the number of an image, which is then left out, or the embedding (C,) of another one.
    """
    from sklearn.neighbors import NearestNeighbors

    others = np.arange(len(embeddings.paths))
    if isinstance(query, np.ndarray):
        check_query(query, embeddings.vectors.shape[1], embeddings.file, embeddings.settings)
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


def check_query(query: np.ndarray, length: int, file: Path, settings: Mapping[str, Any]) -> None:
    """Refuse an embedding of another length than those of a file, or one that is not finite."""
    if query.shape != (length,):
        raise ValueError(
            f'the embedding of the query has {query.size} numbers, those of {file} have '
            f'{length}: take the model that made them ({settings.get("model", "unknown")})'
        )
    if not np.isfinite(query).all():
        raise ValueError('the embedding of the query is not finite')


def rows_of_tiles(query: str, found: list[Neighbour]) -> list[Row]:
    """The query and its neighbours for `draw_sheet`."""
    tiles = [tile_of(query, 'query', frame=True)]
    tiles += [tile_of(each.path, f'{each.similarity:.3f}') for each in found]
    return [('', tiles[i : i + _COLUMNS]) for i in range(0, len(tiles), _COLUMNS)]


class PathFinder:
    """Finds images by paths that other people wrote; `paths` holds each image once."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._exact: dict[str, int] = {}
        self._by_name: dict[str, list[tuple[int, tuple[str, ...]]]] = defaultdict(list)
        for i, path in enumerate(paths):
            self._exact[os.path.abspath(path)] = i
            self._by_name[Path(path).name].append((i, Path(path).parts))

    def exact(self, path: str) -> int | None:
        """Number of the image with exactly this path, or `None`."""
        return self._exact.get(os.path.abspath(path))

    def find(self, path: str) -> int | None:
        """Number of the image that a path means, or `None`; a ValueError if it may mean several.

        It may be the end of an image's path, at least the file name, or a longer one with that end.
        """
        exact = self.exact(path)
        if exact is not None:
            return exact
        parts = Path(path).parts
        found = [(i, own) for i, own in self._by_name[Path(path).name] if _same_end(parts, own)]
        if len(found) > 1:
            these = ' or '.join(str(Path(*own)) for _, own in found[:2])
            raise ValueError(f'{path} may be {these}: write more of its path')
        return found[0][0] if found else None


def _same_end(one: Sequence[str], other: Sequence[str]) -> bool:
    shorter = min(len(one), len(other))
    return one[-shorter:] == other[-shorter:]
