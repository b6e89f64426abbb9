"""Masks of large images, of which only the part with the object is kept."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike


class Place(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, values: np.ndarray) -> np.ndarray:
        """Its part of an image (H, W, ...)."""
        return values[self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True, slots=True)
class Cutout:
    """A mask of a large image, of which only the part with the object is kept.

    `numpy.asarray` gives it whole, (H, W) bool.

    Attributes:
        pixels: (h, w) bool, the part.
        top: Its first row in the image.
        left: Its first column.
        size: (H, W) of the image.
    """

    pixels: np.ndarray
    top: int
    left: int
    size: tuple[int, int]

    def __array__(self, dtype: DTypeLike = None, copy: bool | None = None) -> np.ndarray:
        whole = np.zeros(self.size, bool)
        self.place.of(whole)[:] = self.pixels
        return whole if dtype is None else whole.astype(dtype)

    @property
    def place(self) -> Place:
        """Where the part lies in the image."""
        return Place(self.top, self.left, *self.pixels.shape)

    @classmethod
    def of(cls, mask: np.ndarray, place: Place, size: tuple[int, int]) -> 'Cutout':
        """Of a mask (h, w) of a tile."""
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        if not len(rows):
            return cls(np.zeros((0, 0), bool), 0, 0, size)
        top, left = int(rows[0]), int(columns[0])
        pixels = mask[top : rows[-1] + 1, left : columns[-1] + 1].astype(bool)
        return cls(pixels, top + place.top, left + place.left, size)

    def __or__(self, other: 'Cutout') -> 'Cutout':
        places = self.place, other.place
        top, left = (min(each[axis] for each in places) for axis in (0, 1))
        ends = [max(each[axis] + each[axis + 2] for each in places) for axis in (0, 1)]
        pixels = np.zeros((ends[0] - top, ends[1] - left), bool)
        for each in (self, other):
            part = each.place._replace(top=each.top - top, left=each.left - left).of(pixels)
            part |= each.pixels
        return Cutout(pixels, top, left, self.size)

    def __and__(self, other: 'Cutout') -> int:
        """Pixels that both have."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        parts = [each.pixels[top - each.top :, left - each.left :] for each in (self, other)]
        height, width = map(min, zip(*(part.shape for part in parts), strict=True))
        return int((parts[0][:height, :width] & parts[1][:height, :width]).sum())

    def with_rim(self, width: int) -> 'Cutout':
        """With as many pixels of the image more on each side, where it has them."""
        top, left = max(self.top - width, 0), max(self.left - width, 0)
        bottom = min(self.top + self.pixels.shape[0] + width, self.size[0])
        right = min(self.left + self.pixels.shape[1] + width, self.size[1])
        pixels = np.zeros((bottom - top, right - left), bool)
        self.place._replace(top=self.top - top, left=self.left - left).of(pixels)[:] = self.pixels
        return Cutout(pixels, top, left, self.size)

    def run_lengths(self) -> list[int]:
        """COCO's run lengths of the whole mask: columns after each other, first of zeros."""
        height, width = self.size
        columns = np.zeros((self.pixels.shape[1], height), np.int8)
        columns[:, self.top : self.top + self.pixels.shape[0]] = self.pixels.T
        changes = np.flatnonzero(np.diff(columns.ravel(), prepend=0, append=0))
        ends = [0, *(changes + self.left * height).tolist(), height * width]
        lengths = np.diff(ends).tolist()
        return lengths if lengths[-1] or len(lengths) == 1 else lengths[:-1]
