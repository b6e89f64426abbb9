"""Checks of mmseg's label maps: the pixels of each label are counted."""

import contextlib
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vit_backbones.checks.findings import Finding, error, warning
from vit_backbones.checks.looks import Look
from vit_backbones.config.datasets import classes_of
from vit_backbones.errors import counted, one_line, some

_SAMPLE = 50  # label maps that each training looks at; a wrong numbering shows in a few
_LARGE_SAMPLE = 1000  # where those hold a single class: objects may be rare
_MUCH = 0.5  # of the pixels ignored; public data sets leave out up to a third
_WHITE = 255  # of black and white masks; the label that mmseg ignores
_OURS = ('mmcv', 'mmdet', 'mmengine', 'mmseg', 'vit_backbones')
_FAULTS = {
    'colours': (
        'hold colours, not labels',
        'write one channel, in which a pixel is the number of its class',
    ),
    'numbers': (
        'hold fractions or numbers beyond 255, which mmseg cuts to 8 bits',
        'write labels from 0 to 255 with 8 bits',
    ),
    'size': ('have another size than their image', 'make them equal'),
}


class LabelMap(NamedTuple):
    """What one label map holds."""

    path: str
    counts: dict[int, int]  # pixels by label, after the loading transforms
    fault: str | None = None  # a key of `_FAULTS`: it has no labels to count
    detail: str = ''  # of the fault


Parts = Sequence[tuple[Any, Sequence[LabelMap]]]  # datasets, each with its label maps


def count_labels(loaded: dict[str, Any]) -> LabelMap | None:
    """Count the labels of a loaded entry, `None` if it is not mmseg's or has none."""
    labels = loaded.get('gt_seg_map')
    if labels is None or 'reduce_zero_label' not in loaded:
        return None
    path = str(loaded.get('seg_map_path'))
    image = loaded.get('img')
    if labels.ndim != 2:
        return LabelMap(path, {}, 'colours')
    if _is_cut(path):
        return LabelMap(path, {}, 'numbers')
    if isinstance(image, np.ndarray) and image.shape[:2] != labels.shape:
        return LabelMap(path, {}, 'size', _sizes(labels, image))
    if labels.dtype == np.uint8:
        counts = np.bincount(labels.ravel(), minlength=256)
        return LabelMap(path, {int(label): int(counts[label]) for label in np.flatnonzero(counts)})
    found, counts = np.unique(labels, return_counts=True)
    return LabelMap(path, dict(zip(found.tolist(), counts.tolist(), strict=True)))


def _sizes(labels: np.ndarray, image: np.ndarray) -> str:
    (height, width), (rows, columns) = labels.shape, image.shape[:2]
    is_turned = labels.shape == (columns, rows)
    turned = '; an EXIF orientation turns images only' * is_turned
    return f' ({width}x{height} pixels, the image {columns}x{rows}{turned})'


def _is_cut(path: str) -> bool:
    """Whether a file holds values that 8 bits cannot; mmseg takes the lowest 8 silently."""
    with contextlib.suppress(Exception), Image.open(path) as image:  # other backends, other formats
        if image.mode[0] in 'IF':
            values = np.asarray(image)
            return bool((values != values.astype(np.uint8)).any())
    return False


def file_findings(
    dataset: Any, answers: Iterable[LabelMap | None], place: str
) -> Iterator[Finding]:
    """Which label maps of a dataset hold no labels, or some that it has no class for."""
    maps = [each for each in answers if each is not None]
    if classes_of(dataset):
        found = [*_fault_findings(maps, place), *_range_findings(dataset, maps, place)]
        yield from _unless_changed(dataset, found)


def _unless_changed(dataset: Any, found: Iterable[Finding]) -> Iterator[Finding]:
    """Findings, as warnings where a transform that no toolbox has may change labels later."""
    names = [
        type(each).__name__
        for each in getattr(dataset.pipeline, 'transforms', ())
        if type(each).__module__.split('.')[0] not in _OURS
        and not type(each).__name__.startswith('Load')
    ]
    for each in found:
        yield warning(f'{each.text} (unless {", ".join(names)} changes labels)') if names else each


def _fault_findings(maps: Sequence[LabelMap], place: str) -> Iterator[Finding]:
    for fault, (what, fix) in _FAULTS.items():
        faulty = [each for each in maps if each.fault == fault]
        if faulty:
            yield error(
                f'{place}: {len(faulty)} of {len(maps)} label maps {what}, the first is '
                f'{faulty[0].path}{faulty[0].detail}: {fix}'
            )


def _range_findings(dataset: Any, maps: Sequence[LabelMap], place: str) -> Iterator[Finding]:
    classes, ignored = classes_of(dataset), _ignored(dataset)
    outside = [
        (each, max(wrong))
        for each in maps
        if (wrong := [n for n in each.counts if n != ignored and not 0 <= n < len(classes)])
    ]
    if not outside:
        return
    first, label = outside[0]
    rest = f', and {len(outside) - 1} more label maps too' if len(outside) > 1 else ''
    fix = 'name all classes, or draw the labels anew (reduce_zero_label=True takes 1 off each)'
    if first.path.lower().endswith(('.jpg', '.jpeg')):
        fix = 'JPEG changes labels; save them as PNG'
    elif label == _WHITE:
        fix = f'draw objects as the number of their class, not as {_WHITE}'
    yield error(
        f'{place}: {first.path} holds label {label:.0f}{rest}, but labels of '
        f'{counted(len(classes), "class")} run from 0 to {len(classes) - 1}: {fix}'
    )


def split_findings(
    leaves: Sequence[tuple[Any, Iterable[LabelMap | None]]], place: str
) -> Iterator[Finding]:
    """What all label maps of a split leave to learn, which may lie in several datasets."""
    for parts in _by_classes(leaves, place):
        found = [*_single_findings(parts, place, is_whole=True)]
        yield from _unless_changed(parts[0][0], found or [*_share_findings(parts, place)])


def _by_classes(
    leaves: Sequence[tuple[Any, Iterable[LabelMap | None]]], place: str
) -> Iterator[Parts]:
    """Datasets whose label maps are in order, those with the same classes together."""
    kinds: dict[tuple[str, ...], list[tuple[Any, list[LabelMap]]]] = {}
    for dataset, answers in leaves:
        maps = [each for each in answers if each is not None]
        if maps and not any(file_findings(dataset, maps, place)):
            kinds.setdefault(tuple(classes_of(dataset)), []).append((dataset, maps))
    yield from (parts for classes, parts in kinds.items() if len(classes) > 1)


def _single_findings(parts: Parts, place: str, *, is_whole: bool) -> Iterator[Finding]:
    """Whether label maps hold no class, or a single one; in a sample others may just be rare."""
    dataset, maps = parts[0][0], [each for _, part in parts for each in part]
    counts, hint = _total(maps), _zero_label(dataset)
    share = _share(counts.pop(_ignored(dataset), 0), counts)
    level = error if place.startswith('train') else warning
    held = f'{place}: its {len(maps)} label maps hold'
    white = [(each, part) for each, part in parts if _is_black_and_white(each, part)]
    if not counts:
        yield level(f'{held} only {_ignored(dataset)}, which is ignored{hint}')
    elif white:
        level = level if len(white) == len(parts) else warning
        yield level(_black_and_white(white, place))
    elif len(counts) == 1 and (is_whole or hint):
        level = level if is_whole else warning
        only = f'only class {classes_of(dataset)[next(iter(counts))]!r}'
        left_out = f' and {share:.0%} ignored pixels' * bool(share)
        yield level(f'{held} {only}{left_out}, so there is nothing to tell apart{hint}')


def _share_findings(parts: Parts, place: str) -> Iterator[Finding]:
    """Which classes never occur, and whether much is ignored that nobody asked to ignore."""
    dataset, maps = parts[0][0], [each for _, part in parts for each in part]
    counts = _total(maps)
    share = _share(counts.pop(_ignored(dataset), 0), counts)
    yield from _absent_findings(dataset, counts, place, len(maps))
    if share > _MUCH and getattr(dataset, 'label_map', None) is None:
        held = f'its {len(maps)} label maps hold {share:.0%} ignored pixels'
        yield warning(f'{place}: {held}{_zero_label(dataset)}')


def _share(ignored: int, counts: Counter[int]) -> float:
    return ignored / max(ignored + counts.total(), 1)


def _absent_findings(
    dataset: Any, counts: Counter[int], place: str, number: int
) -> Iterator[Finding]:
    classes = classes_of(dataset)
    absent = [name for label, name in enumerate(classes) if label not in counts]
    if not absent:
        return
    many = len(absent) > 1
    what = f'classes {some(absent, 5)} occur' if many else f'class {absent[0]} occurs'
    end = f'{"they are" if many else "it is"} never learned'
    if not place.startswith('train'):
        end = f'{"their" if many else "its"} IoU is nan'
    hint = _zero_label(dataset) if classes[-1] in absent else ''
    yield warning(f'{place}: {what} in none of {number} label maps: {end}{hint}')


def _is_black_and_white(dataset: Any, maps: Sequence[LabelMap]) -> bool:
    as_drawn = not dataset.reduce_zero_label and getattr(dataset, 'label_map', None) is None
    return as_drawn and {*_total(maps)} == {0, _WHITE} and _ignored(dataset) == _WHITE


def _black_and_white(parts: Parts, place: str) -> str:
    number, first = sum(len(maps) for _, maps in parts), parts[0][1][0].path
    return (
        f'{place}: {number} label maps hold only 0 and {_WHITE}, such as {first}, and {_WHITE} is '
        f'ignored, so no object is learned: draw objects as 1, or as the number of their class'
    )


def sample_findings(
    leaves: Sequence[tuple[Any, Callable[[int], dict[str, Any]]]], place: str
) -> Iterator[Finding]:
    """What some label maps of a split show, or all of them where there are few.

    `leaves` are datasets, each with a function that gives an entry after the loading transforms.
    """
    answered, is_whole = [], True
    for dataset, load in leaves:
        if not classes_of(dataset) or not hasattr(dataset, 'reduce_zero_label') or not len(dataset):
            continue
        tried = _sample(dataset, load)
        if all(reason for _, reason in tried):
            yield error(
                f'{place}: none of {len(tried)} images can be loaded with its label map, the first '
                f'fails with: {tried[0][1]}'
            )
            continue
        answers = [answer for answer, _ in tried]
        yield from file_findings(dataset, answers, place)
        answered.append((dataset, answers))
        is_whole &= len(answers) == len(dataset)
    for parts in _by_classes(answered, place):
        found = _single_findings(parts, place, is_whole=is_whole)
        yield from _unless_changed(parts[0][0], found)


def _sample(
    dataset: Any, load: Callable[[int], dict[str, Any]]
) -> list[tuple[LabelMap | None, str | None]]:
    """Answers for some images, in order, or the reasons why they have none.

    While these hold a single class, more are asked: objects may be rare.
    """

    def ask(index: int) -> tuple[LabelMap | None, str | None]:
        try:
            return count_labels(load(index)), None
        except Exception as raised:  # each decoder has its own; a training skips such images
            return None, one_line(raised)

    tried: dict[int, tuple[LabelMap | None, str | None]] = {}
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for part in _parts(len(dataset)):
            tried.update(zip(part, pool.map(ask, part), strict=True))
            known = [answer for answer, _ in tried.values() if answer]
            if not known or len({*_total(known)} - {_ignored(dataset)}) > 1:
                break
    return [tried[index] for index in sorted(tried)]


def _parts(length: int) -> Iterator[list[int]]:
    """Indices into a dataset, each once, in parts of at most `_SAMPLE` spread evenly over it."""
    sizes = min(_SAMPLE, length), min(_LARGE_SAMPLE, length)
    few, many = ([i * length // size for i in range(size)] for size in sizes)
    yield few
    rest = sorted({*many} - {*few})
    number = math.ceil(len(rest) / _SAMPLE)
    yield from (rest[part::number] for part in range(number))


def _total(maps: Iterable[LabelMap]) -> Counter[int]:
    total: Counter[int] = Counter()
    for each in maps:
        total.update(each.counts)
    return total


def _zero_label(dataset: Any) -> str:
    if not dataset.reduce_zero_label:
        return ''
    return (
        '; reduce_zero_label=True takes 1 off each label and ignores label 0: leave it out, in '
        'LoadAnnotations too, if 0 is a class'
    )


def _ignored(dataset: Any) -> int:
    return getattr(dataset, 'ignore_index', _WHITE)


LABEL_MAPS = Look(count_labels, file_findings, split_findings)
