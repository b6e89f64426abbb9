"""Masks on which mmdet or pycocotools fail, and those that mmdet does not learn."""

import math
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from vit_backbones.objects.survey import GONE, ROUNDING, Kind, Problem, Survey

_READ = 5  # coordinates of the first polygon with which pycocotools knows it for one
_COMPARED = 5_000  # masks, evenly spread
_SUMMED = 200_000  # polygons, likewise: to read all of a million takes a second
_FOR_BOXES = 'configs/vitdet/faster-rcnn_vit-ti_nuclei.py'
_SHORT = 'under three points or an odd number of coordinates'


def broken_masks(survey: Survey, measured: bool) -> Iterator[Problem]:
    """Masks that cannot be read, or are those of another image."""
    if not all(survey.masks):
        bare = np.array([not mask for mask in survey.masks])
        then = (
            f'the config learns masks; draw them, or take a config for boxes, such as {_FOR_BOXES}'
        )
        yield survey.problem(bare, 'without segmentation', then, stops=True)
        return
    if not _are_readable(survey.masks):
        readable = np.fromiter(map(_is_readable, survey.masks), bool, survey.number)
        then = 'it takes polygons [[x1, y1, x2, y2, ...], ...], or RLE with size and counts'
        yield survey.problem(~readable, 'with a segmentation of another form', then, stops=True)
        return
    other = survey.rle & survey.joins
    for i in np.flatnonzero(other):
        other[i] = not _fits(survey.masks[i], survey.images[survey.image[i]])
    if other.any():
        then = 'its size is [height, width], and its counts are of all pixels'
        yield survey.problem(other, 'with RLE of another size than the image', then, stops=True)
    short = ~survey.rle & (survey.polygons.first < _READ)
    if measured and short.any():
        then = 'pycocotools fails; draw their masks anew, or remove them'
        what = 'whose first polygon has under three points'
        yield survey.problem(short, what, then, stops=True)


def _are_readable(masks: Sequence[Any]) -> bool:
    """Whether `_is_readable` holds for all; of very many polygons some are looked into."""
    others = [mask for mask in masks if not isinstance(mask, list)]
    try:
        parts = list(chain.from_iterable(mask for mask in masks if isinstance(mask, list)))
        sums = np.fromiter(map(sum, parts[:: len(parts) // _SUMMED + 1]), float)
    except TypeError:
        return False
    lists = set(map(type, parts)) <= {list}
    return lists and bool(np.isfinite(sums).all()) and all(map(_is_readable, others))


def _is_readable(mask: Any) -> bool:
    """Whether a mask is polygons of finite numbers, or RLE."""
    if isinstance(mask, dict):
        size, counts = mask.get('size'), mask.get('counts')
        return isinstance(counts, list | str) and isinstance(size, list) and len(size) == 2
    try:
        return math.isfinite(sum(map(sum, mask)))
    except TypeError:
        return False


def _fits(rle: dict[str, Any], image: dict[str, Any]) -> bool:
    height, width = rle['size']
    whole = isinstance(rle['counts'], str) or sum(rle['counts']) == height * width
    return whole and (height, width) == (image['height'], image['width'])


def odd_masks(survey: Survey) -> Iterator[Kind]:
    """Masks that mmdet learns in part, not at all, or beside their box."""
    yield Kind(survey.maskless, f'whose polygons have {_SHORT}', f'{GONE}; draw their masks anew')
    parts = (survey.polygons.taken < survey.polygons.all) & ~survey.maskless
    then = 'mmdet leaves these parts out; draw them anew'
    yield Kind(parts, f'some of whose polygons have {_SHORT}', then, True)
    if not survey.takes_rle:
        yield Kind(survey.rle, 'with RLE', 'poly2mask=False leaves them out; set poly2mask=True')
    yield Kind(_elsewhere(survey), 'whose mask lies beside the box', 'make them agree', True)


def _elsewhere(survey: Survey) -> np.ndarray:
    """Objects whose polygons cover another part of the image than their box."""
    wrong = np.zeros(survey.number, dtype=bool)
    places = np.flatnonzero(survey.learned & ~survey.rle)
    places = places[:: -(-len(places) // _COMPARED) or 1]
    if not len(places):
        return wrong
    bounds = np.array([_bounds(survey.masks[i]) for i in places])
    start, size = survey.boxes[places, :2], survey.boxes[places, 2:]
    boxes = np.concatenate([start, start + size], axis=1)
    both = np.minimum(bounds, boxes)[:, 2:] - np.maximum(bounds, boxes)[:, :2]
    outer = np.maximum(bounds, boxes)[:, 2:] - np.minimum(bounds, boxes)[:, :2]
    share = both.clip(0).prod(1) / outer.prod(1)
    wrong[places] = (share < 1 / 2) & (np.abs(bounds - boxes).max(1) > 2 * ROUNDING)
    return wrong


def _bounds(mask: Sequence[Sequence[float]]) -> tuple[float, float, float, float]:
    """(x1, y1, x2, y2) around polygons."""
    xs = [x for part in mask for x in part[::2]]
    ys = [y for part in mask for y in part[1::2]]
    return min(xs), min(ys), max(xs), max(ys)
