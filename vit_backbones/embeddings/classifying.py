"""Predict labels from embeddings, scored by cross-validation."""

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_backbones.embeddings.search import PathFinder
from vit_backbones.features.embedding_tables import Embeddings

_SEED = 0
_MOST_FOLDS = 5
_FEWEST = 2  # images of a class
_MOST_NEIGHBOURS = 20
_TEMPERATURE = 0.07


class Scores(NamedTuple):
    """Accuracies (folds,) on 0-1 of each classifier, by cross-validation.

    `counts` has the number of images of each class that took part, `rare` that of each class with
    too few.
    """

    counts: dict[str, int]
    rare: dict[str, int]
    accuracies: dict[str, np.ndarray]


def read_labels(file: str | Path) -> dict[str, str]:
    """Read labels by path from a CSV file with the columns `path` and `label`, maybe empty."""
    labels: dict[str, str] = {}
    try:
        with open(file, newline='', encoding='utf-8-sig') as lines:
            reader = csv.DictReader(lines)
            columns = reader.fieldnames or []
            if not {'path', 'label'} <= set(columns):
                raise ValueError(
                    f"{file}: the first line must be 'path,label', it is {','.join(columns)!r}"
                )
            for row in reader:
                path, label = (str(row[key] or '').strip() for key in ('path', 'label'))
                if path and label and labels.setdefault(path, label) != label:
                    raise ValueError(f'{file}: {path} is {labels[path]!r} and {label!r}')
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f'{file}: no CSV file in UTF-8 ({error})') from None
    return labels


def match_labels(
    file: str | Path, labels: Mapping[str, str], embeddings: Embeddings
) -> tuple[list[str | None], list[str]]:
    """Match labels by path with images: a label or `None` for each, and the paths that fit none.

    `file` is for errors: no label has an image, one fits several images, or two fit one.
    """
    finder = PathFinder(embeddings.paths)
    matched: list[str | None] = [None] * len(embeddings.paths)
    unused = []
    for path, label in labels.items():
        found = finder.find(path)
        if found is None:
            unused.append(path)
        elif matched[found] not in (None, label):
            raise ValueError(f'{file}: {path} is {matched[found]!r} and {label!r}')
        else:
            matched[found] = label
    if not any(matched):
        example = next(iter(labels), 'nothing')
        raise ValueError(
            f'{file}: no path in it is in {embeddings.file}: {example!r} here, '
            f'{embeddings.paths[0]!r} there'
        )
    return matched, unused


def classify(embeddings: Embeddings, labels: Sequence[str | None]) -> Scores:
    """Cross-validate two classifiers and the most frequent label, with a label or `None` per image.

    kNN weighs neighbours by exp(cosine / 0.07) as Wu et al. 2018 (arXiv:1805.01978) and DINO do;
    logistic regression sees standardised embeddings. Folds are stratified and the same for all.
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    counts = Counter(label for label in labels if label is not None)
    kept = {name: n for name, n in sorted(counts.items()) if n >= _FEWEST}
    rare = {name: n for name, n in sorted(counts.items()) if n < _FEWEST}
    if len(kept) < 2:
        raise ValueError(
            f'classify=... needs two classes with {_FEWEST} images each, there are '
            + ', '.join(f'{name!r} ({n})' for name, n in counts.most_common(5))
        )
    vectors = embeddings.vectors[[label in kept for label in labels]]
    names = np.array([label for label in labels if label in kept])
    folds = StratifiedKFold(min(_MOST_FOLDS, *kept.values()), shuffle=True, random_state=_SEED)
    fewest_learned = min(len(learned) for learned, _ in folds.split(vectors, names))
    neighbours = min(_MOST_NEIGHBOURS, fewest_learned)
    accuracies = {
        name: cross_val_score(model, vectors, names, cv=folds, error_score='raise')
        for name, model in _classifiers(neighbours).items()
    }
    return Scores(kept, rare, accuracies)


def _classifiers(neighbours: int) -> dict[str, Any]:
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    knn = KNeighborsClassifier(neighbours, metric='cosine', weights=_weights)
    return {
        f'kNN (k = {neighbours}, cosine)': knn,
        'logistic regression': make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        'most frequent class': DummyClassifier(strategy='most_frequent'),
    }


def _weights(distances: np.ndarray) -> np.ndarray:
    return np.exp(-distances / _TEMPERATURE)


def as_table(scores: Scores) -> str:
    """Write the accuracies as a table for people."""
    folds = len(next(iter(scores.accuracies.values())))
    images, classes = sum(scores.counts.values()), len(scores.counts)
    head = f'accuracy by {folds} folds of {images} images in {classes} classes'
    if folds < _MOST_FOLDS:
        name, fewest = min(scores.counts.items(), key=lambda item: item[1])
        head += f' (no more folds, as {name!r} has {fewest} images)'
    rows = (
        f'  {name:22}{each.mean():6.3f} ± {each.std():.3f}'
        for name, each in scores.accuracies.items()
    )
    return '\n'.join((head, *rows))


def as_json(scores: Scores, settings: Mapping[str, Any]) -> bytes:
    """Write the accuracies as JSON for programs.

    Keys: `embeddings` (how they were made), `classes` and `too_rare` with numbers of images, and
    `accuracy` with `mean`, `std` and `folds` for each classifier.
    """
    accuracies = {
        name: dict(mean=each.mean(), std=each.std(), folds=each.tolist())
        for name, each in scores.accuracies.items()
    }
    content = dict(
        embeddings=settings, classes=scores.counts, too_rare=scores.rare, accuracy=accuracies
    )
    return json.dumps(content, indent=2, ensure_ascii=False).encode()
