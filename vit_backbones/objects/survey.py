"""A COCO file in columns, by the rules of mmdet's `CocoDataset` and `LoadAnnotations`."""

from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

NUMBERS = {int, float}
GONE = 'mmdet leaves them out'
ROUNDING = 2  # pixels by which a box may leave its image
_SHORTEST = 6  # coordinates of a polygon
_SHOWN = 3  # ids in a line


class Problem(NamedTuple):
    """One mistake in a COCO file, in a line without the file's name; `stops` spoils all of it."""

    stops: bool
    text: str


class Kind(NamedTuple):
    """Objects that share a mistake."""

    wrong: np.ndarray  # (N,) bool
    what: str  # they are 'objects ...'
    then: str  # what follows, and the fix
    tolerated: bool = False  # a few in a large file are no line


class Survey:
    """A COCO file whose keys have the right types, in columns of a value per annotation."""

    def __init__(
        self,
        content: dict[str, Any],
        classes: Sequence[str] | None,
        with_masks: bool,
        takes_rle: bool,
    ) -> None:
        self.images, self.annotations = content['images'], content['annotations']
        self.categories, self.classes = content['categories'], classes
        self.with_masks, self.takes_rle = with_masks, takes_rle
        self.number = len(self.annotations)
        index = {image['id']: i for i, image in enumerate(self.images)}
        self.image = np.array([index.get(a['image_id'], -1) for a in self.annotations])
        self.joins = self.image >= 0

    def problem(
        self, wrong: np.ndarray, what: str, then: str, *, stops: bool | None = None
    ) -> Problem:
        """A line on objects, as `problem_of` writes it."""
        return problem_of(self.annotations, wrong, what, then, name='objects', stops=stops)

    def flags(self, key: str) -> np.ndarray:
        """Objects whose key is set."""
        return np.array([bool(a.get(key)) for a in self.annotations])

    @cached_property
    def whole(self) -> np.ndarray:
        """Boxes of four finite numbers."""
        boxes = [a['bbox'] for a in self.annotations]
        if set(map(len, boxes)) == {4} and set(map(type, chain(*boxes))) <= NUMBERS:
            return np.isfinite(self.boxes).all(1)
        return np.array([len(box) == 4 and set(map(type, box)) <= NUMBERS for box in boxes])

    @cached_property
    def boxes(self) -> np.ndarray:
        """(N, 4), x, y, width and height in pixels."""
        flat = chain.from_iterable(a['bbox'] for a in self.annotations)
        return np.fromiter(flat, float, 4 * self.number).reshape(-1, 4)

    @cached_property
    def sides(self) -> np.ndarray:
        """(N, 2), width and height of the image of each object, NaN without one."""
        sides = [(image['width'], image['height']) for image in self.images]
        return np.array([*sides, (np.nan, np.nan)], dtype=float)[self.image]

    @cached_property
    def area(self) -> np.ndarray:
        """In pixels."""
        return np.array([a['area'] for a in self.annotations], dtype=float)

    @cached_property
    def crowd(self) -> np.ndarray:
        """Objects that are regions of many, which are not learned."""
        return self.flags('iscrowd')

    @cached_property
    def ignored(self) -> np.ndarray:
        """Objects that mmdet leaves out, and pycocotools does not."""
        return self.flags('ignore')

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
        return ((start < -ROUNDING) | (end > self.sides + ROUNDING)).any(1)

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
        return np.array([a['category_id'] in ids for a in self.annotations])

    @cached_property
    def masks(self) -> list[Any]:
        """Polygons or RLE."""
        return [a.get('segmentation') for a in self.annotations]

    @cached_property
    def rle(self) -> np.ndarray:
        """Objects whose mask is RLE."""
        return np.array([isinstance(mask, dict) for mask in self.masks])

    @cached_property
    def maskless(self) -> np.ndarray:
        """Objects whose mask has no polygon that mmdet takes."""
        return ~self.rle & ~np.array([any(map(is_polygon, mask)) for mask in self.masks])

    @cached_property
    def learned(self) -> np.ndarray:
        """Objects that are learned."""
        gone = self.ignored | self.outside | self.narrow | self.areas_gone | self.crowd
        if self.with_masks:
            gone |= self.maskless | (self.rle & (not self.takes_rle))
        return self.joins & self.of_classes & ~gone


def is_polygon(part: Sequence[float]) -> bool:
    """Whether mmdet takes it: three points, or more."""
    return len(part) >= _SHORTEST and not len(part) % 2


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
    ids = [entries[i].get('id', f'number {i}') for i in np.flatnonzero(wrong)[: _SHOWN + 1]]
    count = np.count_nonzero(wrong)
    text = f'{count} of {len(entries)} {name} {what} (id {listed(ids)}): {then}'
    return Problem(count == len(entries) if stops is None else stops, text)


def listed(names: Sequence[Any]) -> str:
    """The first few."""
    return ', '.join(map(str, names[:_SHOWN])) + ', ...' * (len(names) > _SHOWN)
