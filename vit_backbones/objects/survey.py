"""A COCO file in columns, by the rules of mmdet's `CocoDataset` and `LoadAnnotations`."""

from collections.abc import Sequence
from functools import cached_property
from itertools import chain, repeat
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from vit_backbones.errors import counted, some

NUMBERS = {int, float}
GONE = 'mmdet leaves them out'
ROUNDING = 2  # pixels by which a box may leave its image
_SHORTEST = 6  # coordinates of a polygon


class Problem(NamedTuple):
    """One mistake in a COCO file, in a line without the file's name; `stops` spoils all of it."""

    stops: bool
    text: str


class Kind(NamedTuple):
    """Objects that share a mistake."""

    wrong: np.ndarray  # (N,) bool, of all
    what: str  # they are 'annotations ...'
    then: str  # what follows, and the fix
    tolerated: bool = False  # a few in a large file are no line


class Polygons(NamedTuple):
    """Polygons per object; RLE has none."""

    all: np.ndarray  # (N,) their number
    taken: np.ndarray  # (N,) number of those with three points or more, which mmdet takes
    first: np.ndarray  # (N,) coordinates of the first one, 0 without one

    @classmethod
    def of(cls, masks: Sequence[Any]) -> 'Polygons':
        """Count them."""
        lists = [() if isinstance(mask, dict) else mask for mask in masks]
        counts = np.fromiter(map(len, lists), int, len(lists))
        lengths = np.fromiter(map(len, chain.from_iterable(lists)), int)
        right = np.append(0, np.cumsum((lengths >= _SHORTEST) & (lengths % 2 == 0)))
        ends = np.cumsum(counts)
        starts = ends - counts
        first = np.append(lengths, 0)[starts]
        return cls(counts, right[ends] - right[starts], np.where(counts, first, 0))


class Survey:
    """A COCO file whose keys have the right types, in columns of a value per annotation."""

    def __init__(
        self,
        content: dict[str, Any],
        classes: Sequence[str] | None,
        with_masks: bool,
        takes_rle: bool,
        columns: dict[str, list[Any]] | None = None,
    ) -> None:
        self.images, self.annotations = content['images'], content['annotations']
        self.categories, self.classes = content['categories'], classes
        self.with_masks, self.takes_rle = with_masks, takes_rle
        self.number = len(self.annotations)
        self._columns = columns or {}
        index = {image['id']: i for i, image in enumerate(self.images)}
        places = map(index.get, self.column('image_id'), repeat(-1))
        self.image = np.fromiter(places, int, self.number)
        self.joins = self.image >= 0

    def problem(
        self, wrong: np.ndarray, what: str, then: str, *, stops: bool | None = None
    ) -> Problem:
        """A line on objects, as `problem_of` writes it."""
        return problem_of(self.annotations, wrong, what, then, name='annotations', stops=stops)

    def column(self, key: str) -> list[Any]:
        """The value of each annotation, `None` without one."""
        if key not in self._columns:
            self._columns[key] = column_of(self.annotations, key)
        return self._columns[key]

    @cached_property
    def whole(self) -> np.ndarray:
        """Boxes of four finite numbers."""
        boxes = self.column('bbox')
        types = set(map(type, chain.from_iterable(boxes)))
        if set(map(len, boxes)) == {4} and types <= NUMBERS:
            return np.isfinite(self.boxes).all(1)
        return np.array([len(box) == 4 and set(map(type, box)) <= NUMBERS for box in boxes])

    @cached_property
    def boxes(self) -> np.ndarray:
        """(N, 4), x, y, width and height in pixels."""
        flat = chain.from_iterable(self.column('bbox'))
        return np.fromiter(flat, float, 4 * self.number).reshape(-1, 4)

    @cached_property
    def sides(self) -> np.ndarray:
        """(N, 2), width and height of the image of each object, NaN without one."""
        sides = [column_of(self.images, key) for key in ('width', 'height')]
        return np.array(sides, dtype=float).T[self.image] + np.where(self.joins, 0, np.nan)[:, None]

    @cached_property
    def area(self) -> np.ndarray:
        """In pixels."""
        return np.array(self.column('area'), dtype=float)

    @cached_property
    def crowd(self) -> np.ndarray:
        """Objects that are regions of many, which are not learned."""
        return np.array(self.column('iscrowd'), dtype=bool)

    @cached_property
    def ignored(self) -> np.ndarray:
        """Objects that mmdet leaves out, and pycocotools does not."""
        return np.array(self.column('ignore'), dtype=bool)

    @cached_property
    def outside(self) -> np.ndarray:
        """Boxes no part of which lies in their image."""
        start, size = self.boxes[:, :2], self.boxes[:, 2:]
        inside = np.minimum(start + size, self.sides) - np.maximum(start, 0)
        return (inside <= 0).any(1) & ~self.narrow

    @cached_property
    def leaving(self) -> np.ndarray:
        """Boxes that leave their image by more than rounding."""
        start, end = self.boxes[:, :2], self.boxes[:, :2] + self.boxes[:, 2:]
        return ((start < -ROUNDING) | (end > self.sides + ROUNDING)).any(1) & self.joins

    @cached_property
    def narrow(self) -> np.ndarray:
        """Boxes of less than a pixel."""
        return (self.boxes[:, 2:] < 1).any(1)

    @cached_property
    def areas_gone(self) -> np.ndarray:
        """Objects without an area whose box has one."""
        return ~(self.area > 0) & ~self.narrow

    @cached_property
    def of_classes(self) -> np.ndarray:
        """Objects of the classes to learn."""
        ids = {
            category['id']
            for category in self.categories
            if self.classes is None or category['name'] in self.classes
        }
        return np.fromiter(map(ids.__contains__, self.column('category_id')), bool, self.number)

    @cached_property
    def masks(self) -> list[Any]:
        """Lists of polygons, or RLE as dicts."""
        return self.column('segmentation')

    @cached_property
    def rle(self) -> np.ndarray:
        """Objects whose mask is RLE."""
        return np.fromiter((type(mask) is dict for mask in self.masks), bool, self.number)

    @cached_property
    def polygons(self) -> Polygons:
        """Polygons of all objects, in their order."""
        return Polygons.of(self.masks)

    @cached_property
    def maskless(self) -> np.ndarray:
        """Objects whose mask has no polygon that mmdet takes."""
        return ~self.rle & (self.polygons.taken == 0)

    @cached_property
    def learned(self) -> np.ndarray:
        """Objects that are learned."""
        gone = self.ignored | self.outside | self.narrow | self.areas_gone | self.crowd
        if self.with_masks:
            gone |= self.maskless | (self.rle & (not self.takes_rle))
        return self.joins & self.of_classes & ~gone


def column_of(entries: Sequence[dict[str, Any]], key: str) -> list[Any]:
    """The value of each entry, `None` without one."""
    try:
        return list(map(itemgetter(key), entries))
    except KeyError:
        return [entry.get(key) for entry in entries]


def problem_of(
    entries: Sequence[dict[str, Any]],
    wrong: np.ndarray,
    what: str,
    then: str,
    *,
    name: str,
    stops: bool | None = None,
) -> Problem:
    """A line on some of the entries; by default it stops only if it is on all of them."""
    ids = (entries[i].get('id', f'number {i}') for i in np.flatnonzero(wrong))
    count = int(np.count_nonzero(wrong))
    text = f'{count} of {len(entries)} {name} {what} (id {some(ids)}): {then}'
    return Problem(count == len(entries) if stops is None else stops, text)


def taken(number: int, indices: int | Sequence[int] | None) -> np.ndarray:
    """Places of the images that a dataset of MMEngine takes of a number of them by its `indices`.

    Raises:
        ValueError: If it fails, on a list with a place beyond them.
    """
    places = np.arange(number)
    if isinstance(indices, int):
        return places[:indices] if indices >= 0 else places[indices:]
    if wrong := [each for each in indices or () if not -number <= each < number]:
        raise ValueError(
            f'indices has {wrong[0]}, but there are only {counted(number, "image")} to choose '
            f'from, after filter_cfg: take 0 to {number - 1}'
        )
    return places if indices is None else places[list(indices)]
