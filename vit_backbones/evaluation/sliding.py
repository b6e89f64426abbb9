"""Large images in tiles: where tiles lie, and how objects that several of them saw become one.

SAHI (Akyon et al., ICIP 2022, https://arxiv.org/abs/2202.06934) cuts images and merges greedily by
intersection over the smaller area; here a tile's own objects stay apart, and an object that some
tile sees whole is taken from that tile alone.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.structures import InstanceData

from vit_backbones.cutouts import Cutout, Place
from vit_backbones.images import UnreadableImageError
from vit_backbones.position import Grid
from vit_backbones.samples import as_array

_MERGE_THR = 0.5  # as SAHI's default
_RIM = 1 / 16  # of a tile's side: an object that comes so close to its border may be cut by it


class Slide(NamedTuple):
    """How tiles go over large images.

    Attributes:
        crop: Side of a square tile, in pixels.
        stride: Pixels from one tile to the next, at most `crop`.
        merge_thr: Objects of two tiles are one if their intersection is at least this share of the
            smaller one; `None` is 0.5. Only for detectors.
        score_thr: Objects with a lower score are left out before objects are merged.
    """

    crop: int
    stride: int
    merge_thr: float | None = None
    score_thr: float = 0.3

    @property
    def name(self) -> str:
        """As a user gives it."""
        return f'slide=({self.crop}, {self.stride})'

    @classmethod
    def given(
        cls, slide: Sequence[int] | None, merge_thr: float | None, score_thr: float
    ) -> 'Slide | None':
        """Of (crop, stride); `None` stays, and a `ValueError` names what is out of range."""
        if slide is None:
            if merge_thr is not None:
                raise ValueError(f'merge_thr={merge_thr}: goes with slide=(CROP, STRIDE)')
            return None
        pair = isinstance(slide, Sequence) and len(slide) == 2
        if not pair or not all(isinstance(each, Integral) for each in slide):
            raise ValueError(f'slide={slide!r}: takes two whole numbers, (CROP, STRIDE)')
        found = cls(*slide, merge_thr, score_thr)
        if not 0 < found.stride <= found.crop:
            raise ValueError(
                f'{found.name}: CROP and STRIDE are whole numbers from 1, STRIDE at most CROP'
            )
        if merge_thr is not None and not 0 < merge_thr <= 1:
            raise ValueError(f'merge_thr={merge_thr}: takes a share above 0, up to 1')
        return found


def tile_places(size: Grid, slide: Slide) -> list[Place]:
    """Tiles that cover an image (H, W), row by row; no side is longer than that of the image.

    The last tile of a row or column ends with the image, as mmseg's windows do.
    """
    height, width = (min(slide.crop, side) for side in size)
    tops, lefts = (_starts(side, slide) for side in size)
    return [Place(top, left, height, width) for top in tops for left in lefts]


def _starts(side: int, slide: Slide) -> list[int]:
    last = max(side - slide.crop, 0)
    return [*range(0, last, slide.stride), last]


def check_tiles(
    images: Iterable[Any], size_of: Callable[[Any], Grid], slide: Slide, *, resized: bool = False
) -> None:
    """Refuse tiles that are larger than all images.

    `size_of` gives (H, W) of one, `resized` if as the config resizes it.
    """
    sizes = []
    for size in _sizes(images, size_of):
        if max(size) > slide.crop:
            return
        sizes.append(size)
    if sizes:
        height, width = max(sizes, key=max)
        where = "than a window after the config's Resize" if resized else 'than a tile'
        raise ValueError(
            f'{slide.name}: no image is larger {where}, the largest is {width} pixels wide and '
            f'{height} high; leave it out, or take a smaller CROP'
        )


def count_tiles(images: Iterable[Any], size_of: Callable[[Any], Grid], slide: Slide) -> int:
    """How many tiles the images are cut into; the arguments are those of `check_tiles`."""
    sizes = _sizes(images, size_of)
    return sum(math.prod(len(_starts(side, slide)) for side in size) for size in sizes)


def _sizes(images: Iterable[Any], size_of: Callable[[Any], Grid]) -> Iterator[Grid]:
    for each in images:
        with suppress(UnreadableImageError):  # reported where it is read
            yield size_of(each)


class Part(NamedTuple):
    """An object as one tile sees it, in pixels of the image.

    Attributes:
        tile: The number of the tile.
        box: (4,) left, top, right, bottom.
        cut: Whether the tile's border may cut it.
    """

    tile: int
    label: int
    score: float
    box: np.ndarray
    mask: Cutout | None
    cut: bool


def parts_of(
    instances: InstanceData, tile: int, place: Place, size: Grid, score_thr: float
) -> list[Part]:
    """The objects of a tile of an image (H, W), without those of a lower score."""
    found = instances[instances.scores >= score_thr].cpu()
    corner = np.array([place.left, place.top] * 2)
    boxes = as_array(found.bboxes) + corner.astype(np.float32)
    masks = found.get('masks')
    cutouts = [
        None if masks is None else Cutout.of(as_array(masks[i]), place, size)
        for i in range(len(boxes))
    ]
    known = zip(found.labels.tolist(), found.scores.tolist(), boxes, cutouts, strict=True)
    return [Part(tile, *each, _is_cut(each[2], place, size)) for each in known]


def _is_cut(box: np.ndarray, place: Place, size: Grid) -> bool:
    """Whether it comes close to a border of its tile that is none of the image."""
    starts, sides = np.array([place.left, place.top]), np.array([place.width, place.height])
    ends = starts + sides
    before = (starts > 0) & (box[:2] < starts + _RIM * sides)
    behind = (ends < size[::-1]) & (box[2:] > ends - _RIM * sides)
    return bool((before | behind).any())


def merged(parts: Sequence[Part], places: Sequence[Place], merge_thr: float | None) -> list[Part]:
    """One part for each object, the highest score first.

    Two parts of a class, from two tiles, are one object if the intersection of their masks, else of
    their boxes, is at least `merge_thr` of the smaller one. The most alike are joined first, and an
    object has at most one part of a tile. Of parts that no border cuts the one with the highest
    score is taken, else the union of all; the highest score of all stays.
    """
    groups = [[i] for i in range(len(parts))]
    for _, one, other in sorted(_pairs(parts, places, merge_thr or _MERGE_THR)):
        ours, theirs = groups[one], groups[other]
        if {parts[i].tile for i in ours}.isdisjoint(parts[i].tile for i in theirs):
            ours += theirs
            for i in theirs:
                groups[i] = ours
    unique = {id(group): group for group in groups}.values()
    found = [_joined([parts[i] for i in group]) for group in unique]
    return sorted(found, key=lambda part: -part.score)


def _pairs(
    parts: Sequence[Part], places: Sequence[Place], merge_thr: float
) -> Iterator[tuple[float, int, int]]:
    """Parts that may be one object: (- intersection over union, one, other)."""
    of_tile = {tile: [] for tile in range(len(places))}
    for i, part in enumerate(parts):
        of_tile[part.tile].append(i)
    corners = np.array([(p.left, p.top, p.left + p.width, p.top + p.height) for p in places])
    for tile, mine in of_tile.items():
        later = tile + 1 + np.flatnonzero(_areas(corners[tile, None], corners[tile + 1 :])[0] > 0)
        near = [i for other in later for i in of_tile[int(other)]]
        if not mine or not near:
            continue
        boxes = (np.stack([parts[i].box for i in each]) for each in (mine, near))
        ours, theirs = ([parts[i].label for i in each] for each in (mine, near))
        meet = (_areas(*boxes) > 0) & np.equal.outer(ours, theirs)
        for a, b in np.argwhere(meet):
            smaller, union = _shares(parts[mine[a]], parts[near[b]])
            if smaller >= merge_thr:
                yield -union, mine[a], near[b]


def _areas(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """(n, m) areas in which boxes (n, 4) and (m, 4) intersect."""
    starts = np.maximum(ours[:, None, :2], theirs[None, :, :2])
    ends = np.minimum(ours[:, None, 2:], theirs[None, :, 2:])
    return np.prod(np.clip(ends - starts, 0, None), axis=-1)


def _shares(one: Part, other: Part) -> tuple[float, float]:
    """Intersection over the smaller area, and over the union."""
    if one.mask is None:
        common = float(_areas(one.box[None], other.box[None])[0, 0])
        areas = [float(np.prod(each.box[2:] - each.box[:2])) for each in (one, other)]
    else:
        common = one.mask & other.mask
        areas = [int(each.mask.pixels.sum()) for each in (one, other)]
    return common / max(min(areas), 1e-6), common / max(sum(areas) - common, 1e-6)


def _joined(group: Sequence[Part]) -> Part:
    best = max(group, key=lambda part: part.score)
    whole = [part for part in group if not part.cut]
    if whole:
        return max(whole, key=lambda part: part.score)._replace(score=best.score)
    starts = np.min([part.box[:2] for part in group], axis=0)
    ends = np.max([part.box[2:] for part in group], axis=0)
    mask = best.mask
    for part in group:
        mask = mask if mask is None else mask | part.mask
    return best._replace(box=np.concatenate([starts, ends]), mask=mask)


def instances_of(parts: Sequence[Part], *, with_masks: bool) -> InstanceData:
    """As mmdet gives instances, but each mask as a `Cutout` in a list."""
    boxes = np.array([part.box for part in parts], np.float32).reshape(-1, 4)
    found = InstanceData(
        bboxes=torch.from_numpy(boxes),
        labels=torch.tensor([part.label for part in parts], dtype=torch.long),
        scores=torch.tensor([part.score for part in parts], dtype=torch.float32),
    )
    if with_masks:
        found.masks = [part.mask for part in parts]
    return found
