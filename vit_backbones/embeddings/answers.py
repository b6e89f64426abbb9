"""Questions about the embeddings in a file, and their answers in lines and files."""

import importlib.util
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_backbones.embeddings import classifying, clustering, search
from vit_backbones.embeddings.nearest_index import INSTALL, index_of
from vit_backbones.embeddings.projecting import project, require_umap
from vit_backbones.embeddings.store import Store, open_store, scan, unit
from vit_backbones.embeddings.tiles import readable
from vit_backbones.errors import require
from vit_backbones.features.embedding_tables import Embeddings, output_beside, read_embeddings
from vit_backbones.files import write_whole
from vit_backbones.images import image_size
from vit_backbones.pictures.canvas import draw_sheet, png
from vit_backbones.pictures.scatter import draw_scatter

Embed = Callable[[Path], np.ndarray]
MOST = 100_000  # images that are read at once, and compared one by one
_METHODS = dict(pca='PCA', tsne='t-SNE', umap='UMAP')


class Questions(NamedTuple):
    """Questions about embeddings, each of them optional.

    Attributes:
        search: An image whose `top` nearest neighbours are wanted.
        plot: `'pca'`, `'tsne'` or `'umap'`.
        cluster: Number of groups to make.
        classify: CSV file of labels.
    """

    search: str | None = None
    top: int = 8
    plot: str | None = None
    cluster: int | None = None
    classify: str | None = None


def check_questions(questions: Questions) -> bool:
    """Check, before hours of work, that questions can be answered; gives whether there are any."""
    for name, smallest in (('top', 1), ('cluster', 2)):
        value = getattr(questions, name)
        if value is not None and value < smallest:
            raise ValueError(f'{name}=... takes numbers from {smallest} on, got {value}')
    asked = [name for name in ('search', 'plot', 'cluster', 'classify') if getattr(questions, name)]
    for name in asked:
        require('sklearn', f'{name}=...', 'scikit-learn')
    if questions.plot == 'umap':
        require_umap()
    if questions.classify is not None:
        classifying.read_labels(questions.classify)
    return bool(asked)


def answers(questions: Questions, file: str | Path, embed: Embed | None = None) -> Iterator[str]:
    """Answer questions about a file of embeddings in lines of text, and write files beside it.

    Args:
        questions: Checked by `check_questions`.
        file: Written by `tools/extract_features.py`; or the folder of a data set.
        embed: Gives the embedding (C,) of an image that is not in the file, made as those in it.

    Raises:
        OSError, ValueError: For a wrong file, or too few images for a question.
    """
    store = open_store(file)
    if store.total > MOST:
        yield from _of_many(store, questions, embed)
        return
    embeddings = read_embeddings(file)
    yield from embeddings.notes
    groups: Sequence[str | None] | None = None
    if questions.search is not None:
        yield from _search(embeddings, questions.search, questions.top, embed)
    if questions.cluster is not None:
        groups = yield from _cluster(embeddings, questions.cluster)
    if questions.classify is not None:
        groups = yield from _classify(embeddings, questions.classify)
    if questions.plot is not None:
        yield _plot(embeddings, questions.plot, groups)


def _of_many(store: Store, questions: Questions, embed: Embed | None) -> Iterator[str]:
    """Answer about more embeddings than are read at once."""
    for name in ('cluster', 'classify', 'plot'):
        value = getattr(questions, name)
        if value is not None:
            raise ValueError(
                f'{name}={value} takes up to {MOST} images, and {store.place} has {store.total}: '
                f'ask one of its files'
            )
    if questions.search is not None:
        yield from _search_many(store, questions.search, questions.top, embed)


def _search_many(store: Store, query: str, top: int, embed: Embed | None) -> Iterator[str]:
    row = store.find(query)
    if row is not None:
        query, wanted = store.names([row])[0], store.vector(row)
    else:
        embedded = _embedded(query, store.place, store.settings, embed)
        search.check_query(embedded, store.length, store.place, store.settings)
        wanted = unit(embedded[None])[0]
    if importlib.util.find_spec('faiss') is None:
        yield f'compared with all {store.total} images; an index is faster: {INSTALL}'
        cosines, rows = scan(store, wanted[None], top + 1)
    else:
        index = index_of(store)
        yield index.line
        cosines, rows = index.search(wanted[None], top + 1)
    kept = [i for i, each in enumerate(rows[0]) if each >= 0 and each != row][:top]
    names = store.names(rows[0][kept])
    pairs = zip(names, cosines[0][kept].tolist(), strict=True)
    yield from _shown(store.place, query, [search.Neighbour(*pair) for pair in pairs])


def _search(embeddings: Embeddings, query: str, top: int, embed: Embed | None) -> Iterator[str]:
    finder = search.PathFinder(embeddings.paths)
    row = finder.exact(query) if Path(query).is_file() else finder.find(query)
    if row is not None:
        query, wanted = embeddings.paths[row], row
    else:
        wanted = _embedded(query, embeddings.file, embeddings.settings, embed)
    yield from _shown(embeddings.file, query, search.nearest(embeddings, wanted, top))


def _embedded(query: str, file: Path, settings: dict[str, Any], embed: Embed | None) -> np.ndarray:
    """The embedding (C,) of an image that is not among those of a file."""
    image_size(query)  # raises if it is no image
    if embed is None:
        raise ValueError(
            f'{query} is not in {file}: name the model that made its embeddings '
            f'({settings.get("model", "unknown")}), as for extracting'
        )
    return np.asarray(embed(Path(query)), dtype=np.float32)


def _shown(file: Path, query: str, found: list[search.Neighbour]) -> Iterator[str]:
    """The neighbours of an image as lines and as a picture."""
    for rank, each in enumerate(found, 1):
        yield f'{rank:3}  {each.similarity:6.3f}  {each.path}'
    sheet = draw_sheet(search.rows_of_tiles(query, found))
    yield f'written: {write_whole(output_beside(file, "search.png"), png(sheet))}'


def _cluster(embeddings: Embeddings, num_clusters: int) -> Generator[str, None, list[str]]:
    found = clustering.cluster(embeddings, num_clusters)
    sizes = ', '.join(str(len(members)) for members in found.central)
    yield f'{num_clusters} clusters of {sizes} images, silhouette {found.silhouette:.3f}'
    yield _write(embeddings, 'clusters.csv', clustering.as_csv(embeddings, found))
    rows = clustering.rows_of_tiles(embeddings, found)
    yield _write(embeddings, 'clusters.png', png(draw_sheet(rows)))
    return [f'cluster {label}' for label in found.labels]


def _classify(embeddings: Embeddings, file: str) -> Generator[str, None, list[str | None]]:
    labels = classifying.read_labels(file)
    matched, unused = classifying.match_labels(file, labels, embeddings)
    without = matched.count(None)
    if without:
        yield f'{without} of {len(matched)} images have no label'
    if unused:
        yield f'{len(unused)} of {len(labels)} labels have no image, e.g. {unused[0]}'
    scores = classifying.classify(embeddings, matched)
    if scores.rare:
        yield f'left out, with one image each: {", ".join(scores.rare)}'
    yield classifying.as_table(scores)
    content = classifying.as_json(scores, embeddings.settings)
    yield _write(embeddings, 'classify.json', content)
    return matched


def _plot(embeddings: Embeddings, method: str, groups: Sequence[str | None] | None) -> str:
    points = project(embeddings, method)
    title = f'{_METHODS[method]} of {len(points)} images'
    if 'model' in embeddings.settings:
        title += f' by {embeddings.settings["model"]}'
    paths = embeddings.paths
    picture = draw_scatter(points, lambda i: readable(paths[i]), groups, title=title)
    return _write(embeddings, f'{method}.png', picture)


def _write(embeddings: Embeddings, kind: str, content: bytes) -> str:
    return f'written: {write_whole(embeddings.output(kind), content)}'
