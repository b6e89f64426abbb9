"""The built-in dataset: textured, overlapping shapes, drawn and never downloaded.

Class k is shape k filled with texture k; colours are random and say nothing about it. Objects are
cut out of textured sheets that lie on the image's raster: a texture has one period in pixels at
every object size and place, and stays upright while the outline rotates (so horizontal and vertical
stripes remain two textures); only rings are drawn around the object's centre. A horizontal flip
turns no texture into another. Classes are equally likely. The background is a gradient between two
random colours at a random angle. The noise is Gaussian on every pixel.
"""

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from pycocotools import mask as mask_utils
from rich.progress import track

CLASSES: tuple[str, ...] = (
    'circle', 'square', 'triangle', 'hexagon', 'star', 'cross', 'ring', 'crescent',
)  # fmt: skip
TEXTURES: tuple[str, ...] = (
    'checkerboard', 'dots', 'grid', 'concentric', 'solid', 'diagonal', 'vertical', 'horizontal',
)  # fmt: skip
PALETTE: tuple[tuple[int, int, int], ...] = (
    (230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200),
    (245, 130, 48), (145, 30, 180), (70, 240, 240), (240, 50, 230),
)  # fmt: skip

_SPLITS = ('train', 'val')
_FORMAT = 2  # raised whenever the same parameters would give other files
_MAX_TRIES = 40


@dataclasses.dataclass(frozen=True)
class Difficulty:
    """How hard the data are, in one table; lengths are in pixels.

    A diameter is the longer side of the unrotated outline, uniform within its range. Contrasts are
    Euclidean distances of BGR values on 0-255.
    """

    height: int = 128
    width: int = 192
    num_objects: tuple[int, int] = (2, 6)  # fewest and most in an image, both included
    diameters: tuple[tuple[int, int], ...] = ((20, 32), (32, 56), (56, 88))
    diameter_shares: tuple[float, ...] = (0.30, 0.45, 0.25)  # of the objects, for each range
    max_rotation: float = 30.0  # of the outline only, in degrees either way
    min_visible: float = 0.40  # of an object's area, after overlap and border
    max_cut: float = 0.15  # of an object's area, by the border
    texture_period: int = 8  # along rows and columns
    min_contrast: float = 90.0  # between the two colours of an object
    min_background_contrast: float = 60.0  # between each of them and the mean beneath
    max_noise: float = 8.0  # standard deviation on 0-255, uniform from 0 to this in each image


DIFFICULTY = Difficulty()


class Drawing(NamedTuple):
    """One drawn image of N objects."""

    image: np.ndarray  # (H, W, 3) uint8, BGR as OpenCV writes it
    masks: np.ndarray  # (N, H, W) bool, visible pixels of each object; no pixel belongs to two
    labels: np.ndarray  # (N,) int64, indices into CLASSES
    diameters: np.ndarray  # (N,) float64, pixels, before rotation and overlap
    visible: np.ndarray  # (N,) float64, visible part of each object's whole area, 0-1


class _Placed(NamedTuple):
    """An object before overlap: ``mask`` (H, W) ends at the border, ``area`` does not."""

    label: int
    diameter: float
    centre: tuple[float, float]
    mask: np.ndarray
    area: int


def _arc(start: float, stop: float, *, radius: float = 1.0, x: float = 0.0) -> np.ndarray:
    """Points (48, 2) of a circle around (x, 0) between two angles in degrees."""
    angles = np.radians(np.linspace(start, stop, 48))
    return np.stack([x + radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _star(num_points: int, inner: float) -> np.ndarray:
    """Corners (2 * num_points, 2) of a star that points up; its dents lie at radius ``inner``."""
    angles = np.pi * np.arange(2 * num_points) / num_points - np.pi / 2
    radii = np.where(np.arange(2 * num_points) % 2, inner, 1.0)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _outlines() -> dict[str, list[np.ndarray]]:
    """Contours of every class inside [-1, 1] x [-1, 1]; a contour within another is a hole."""
    arm = 0.42
    quarter = np.array([(arm, arm), (arm, 1.0), (-arm, 1.0)])
    turns = [np.array([[0, -1], [1, 0]]), np.eye(2), np.array([[0, 1], [-1, 0]]), -np.eye(2)]
    circle = _arc(0, 360)
    return {
        'circle': [circle],
        'square': [np.array([(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)])],
        'triangle': [np.array([(0.0, -0.95), (1.0, 0.8), (-1.0, 0.8)])],
        'hexagon': [_star(3, 1.0)],
        'star': [_star(5, 0.48)],
        'cross': [np.concatenate([quarter @ turn for turn in turns])],
        'ring': [circle, 0.45 * circle],
        'crescent': [np.concatenate([_arc(53, 307), _arc(274, 86, radius=0.8, x=0.55)])],
    }


_OUTLINES = _outlines()

# (x, y, period) in pixels -> where the second colour goes
_PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    'checkerboard': lambda x, y, p: (x // (p / 2) + y // (p / 2)) % 2 == 1,
    'dots': lambda x, y, p: np.hypot(x % p - p / 2, y % p - p / 2) < 0.34 * p,
    'grid': lambda x, y, p: (x % p < p / 4) | (y % p < p / 4),
    'concentric': lambda x, y, p: np.hypot(x, y) % p < p / 2,
    'solid': lambda x, y, p: np.zeros(x.shape, dtype=bool),
    'diagonal': lambda x, y, p: (x + y) % p < p / 2,
    'vertical': lambda x, y, p: x % p < p / 2,
    'horizontal': lambda x, y, p: y % p < p / 2,
}


def draw_image(seed: int | Sequence[int], *, difficulty: Difficulty = DIFFICULTY) -> Drawing:
    """Draw one image with its objects, from back to front; the same seed gives the same pixels.

    Args:
        seed: Non-negative integer, or several of them.
        difficulty: Parameters of the drawing.
    """
    rng = np.random.default_rng(seed)
    objects = None
    while objects is None:
        objects = _place(rng, difficulty)
    image = _background(rng, difficulty)
    owner = np.zeros(image.shape[:2], dtype=np.uint8)
    for number, placed in enumerate(objects, start=1):
        _paint(rng, image, placed, difficulty)
        owner[placed.mask] = number
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    image += rng.uniform(0, difficulty.max_noise) * noise
    masks = owner == np.arange(1, len(objects) + 1, dtype=np.uint8)[:, None, None]
    return Drawing(
        image=np.clip(image, 0, 255).astype(np.uint8),
        masks=masks,
        labels=np.array([placed.label for placed in objects]),
        diameters=np.array([placed.diameter for placed in objects]),
        visible=masks.sum(axis=(1, 2)) / [placed.area for placed in objects],
    )


def _place(rng: np.random.Generator, difficulty: Difficulty) -> list[_Placed] | None:
    """Objects from back to front, or ``None`` if one finds no place that leaves all visible."""
    low, high = difficulty.num_objects
    objects: list[_Placed] = []
    for _ in range(rng.integers(low, high, endpoint=True)):
        # Class and size come before the search for a place: it would favour small objects.
        label = int(rng.integers(len(CLASSES)))
        number = rng.choice(len(difficulty.diameters), p=difficulty.diameter_shares)
        diameter = rng.uniform(*difficulty.diameters[number])
        candidates = (_outline(rng, label, diameter, difficulty) for _ in range(_MAX_TRIES))
        fitting = next((new for new in candidates if _fits(new, objects, difficulty)), None)
        if fitting is None:
            return None
        objects.append(fitting)
    return objects


def _outline(
    rng: np.random.Generator, label: int, diameter: float, difficulty: Difficulty
) -> _Placed:
    """The object at a random place and rotation."""
    height, width = difficulty.height, difficulty.width
    margin = int(diameter)
    x, y = rng.uniform(0.4 * diameter, (width - 0.4 * diameter, height - 0.4 * diameter))
    angle = np.radians(rng.uniform(-difficulty.max_rotation, difficulty.max_rotation))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    contours = [
        np.rint(16 * (points @ turn * diameter / 2 + (x + margin, y + margin))).astype(np.int32)
        for points in _OUTLINES[CLASSES[label]]
    ]
    canvas = np.zeros((height + 2 * margin, width + 2 * margin), dtype=np.uint8)
    cv2.fillPoly(canvas, contours, 1, shift=4)
    inside = canvas[margin : margin + height, margin : margin + width].astype(bool)
    return _Placed(label, diameter, (x, y), inside, cv2.countNonZero(canvas))


def _fits(new: _Placed, objects: Sequence[_Placed], difficulty: Difficulty) -> bool:
    """Whether ``new`` on top of ``objects`` leaves every one of them visible enough."""
    if np.count_nonzero(new.mask) < (1 - difficulty.max_cut) * new.area:
        return False
    covered = new.mask.copy()
    for placed in reversed(objects):
        if np.count_nonzero(placed.mask & ~covered) < difficulty.min_visible * placed.area:
            return False
        covered |= placed.mask
    return True


def _background(rng: np.random.Generator, difficulty: Difficulty) -> np.ndarray:
    """Gradient (H, W, 3) float32 between two random colours at a random angle."""
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.arange(difficulty.height), np.arange(difficulty.width)
    ramp = np.add.outer(np.sin(angle) * rows, np.cos(angle) * columns)
    ramp = ((ramp - ramp.min()) / np.ptp(ramp)).astype(np.float32)
    start, stop = rng.uniform(0, 255, (2, 3)).astype(np.float32)
    return start + ramp[..., None] * (stop - start)


def _paint(
    rng: np.random.Generator, image: np.ndarray, placed: _Placed, difficulty: Difficulty
) -> None:
    """Fill the object on ``image`` in place, in two colours that stand out from the rest."""
    beneath = image[placed.mask].mean(axis=0)
    while True:
        first, second = rng.uniform(0, 255, (2, 3))
        to_beneath = min(np.linalg.norm(first - beneath), np.linalg.norm(second - beneath))
        if (
            np.linalg.norm(first - second) >= difficulty.min_contrast
            and to_beneath >= difficulty.min_background_contrast
        ):
            break
    y, x = np.nonzero(placed.mask)
    texture = TEXTURES[placed.label]
    if texture == 'concentric':
        x, y = x - placed.centre[0], y - placed.centre[1]
    is_second = _PATTERNS[texture](x, y, difficulty.texture_period)
    image[placed.mask] = np.stack([first, second])[is_second.astype(np.intp)]


def write_shapes(
    root: str | Path = 'data/shapes', *, num_train: int = 1600, num_val: int = 200, seed: int = 0
) -> Path:
    """Write the dataset once, for the stock datasets of mmdet and mmseg.

    ==============================  ============================================================
    ``{train,val}/*.png``           images
    ``annotations/instances_*``     COCO instances: visible pixels as RLE; category = label + 1
    ``semantic/{train,val}/*.png``  one byte a pixel: 0 background, else label + 1
    ``panoptic/{train,val}/*.png``  COCO panoptic ids as colours
    ``annotations/panoptic_*``      eight things (1-8), then the stuff class background (9)
    ``meta.json``                   the parameters
    ==============================  ============================================================

    Everything is drawn into a hidden sibling folder that is then renamed: a killed run leaves no
    half set under ``root``, and several processes may call this at once. Image i of a split
    depends only on ``seed``, not on how many are drawn.

    With the same parameters in ``root`` nothing is drawn. Returns ``root`` as a path.

    Raises:
        ValueError: If a number is out of range, or ``root`` holds anything but this dataset with
            these parameters.
    """
    for name, value in (('num_train', num_train), ('num_val', num_val), ('seed', seed)):
        least = 0 if name == 'seed' else 1
        if not isinstance(value, int) or value < least:
            raise ValueError(f'{name}={value!r}: must be an integer of at least {least}')
    meta = _meta(num_train, num_val, seed)
    target = Path(root).resolve()
    if _holds(target, meta):
        return Path(root)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f'.{target.name}-', dir=target.parent))
    try:
        _write_all(draft, meta)
        draft.chmod(0o755)  # mkdtemp makes folders that others cannot read
        _publish(draft, target, meta)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Path(root)


def _meta(num_train: int, num_val: int, seed: int) -> dict[str, Any]:
    """Everything the files depend on, as JSON gives it back."""
    meta = {
        'dataset': 'vit_backbones.shapes',
        'format': _FORMAT,
        'num_train': num_train,
        'num_val': num_val,
        'seed': seed,
        'classes': CLASSES,
        'textures': TEXTURES,
        **dataclasses.asdict(DIFFICULTY),
    }
    return json.loads(json.dumps(meta))


def _holds(target: Path, meta: dict[str, Any]) -> bool:
    """True if ``target`` is this dataset, False if missing or empty, else an error."""
    advice = 'delete it or choose another root'
    if not target.exists():
        return False
    if not target.is_dir():
        raise ValueError(f'{target} is not a folder: {advice}')
    if not any(target.iterdir()):
        return False
    try:
        found = json.loads((target / 'meta.json').read_text())
        is_ours = found['dataset'] == meta['dataset']
    except (OSError, ValueError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        raise ValueError(f'{target} holds files that are not the built-in shapes: {advice}')
    changed = [key for key in {**meta, **found} if found.get(key) != meta.get(key)]
    if changed:
        holds = ', '.join(f'{key}={found.get(key)}' for key in changed)
        asked = ', '.join(f'{key}={meta.get(key)}' for key in changed)
        raise ValueError(f'{target} holds shapes with {holds}, asked for {asked}: {advice}')
    return True


def _publish(draft: Path, target: Path, meta: dict[str, Any]) -> None:
    """Rename ``draft`` to ``target``; if another process was faster, its set must be the same."""
    try:
        os.rename(draft, target)  # atomic; replaces an empty folder, fails on any other
    except OSError:
        if not _holds(target, meta):
            raise


def _write_all(folder: Path, meta: dict[str, Any]) -> None:
    """Both splits, then the stamp."""
    (folder / 'annotations').mkdir()
    things = [{'id': k, 'name': name, 'isthing': 1} for k, name in enumerate(CLASSES, start=1)]
    stuff = [{'id': len(CLASSES) + 1, 'name': 'background', 'isthing': 0}]
    for number, split in enumerate(_SPLITS):
        for kind in ('.', 'semantic', 'panoptic'):
            (folder / kind / split).mkdir(parents=True)
        indices = range(meta[f'num_{split}'])
        records = [
            _write_image(folder, split, index, draw_image((meta['seed'], number, index)))
            for index in track(indices, description=f'drawing shapes ({split})')
        ]
        images, instances, panoptic = zip(*records, strict=True)
        flat = [annotation for of_image in instances for annotation in of_image]
        for kind, annotations, categories in (
            ('instances', flat, things),
            ('panoptic', panoptic, things + stuff),
        ):
            coco = {'images': images, 'annotations': annotations, 'categories': categories}
            path = folder / 'annotations' / f'{kind}_{split}.json'
            path.write_text(json.dumps(coco))
    (folder / 'meta.json').write_text(json.dumps(meta, indent=2))


def _write_image(
    folder: Path, split: str, index: int, drawing: Drawing
) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """Write the three PNGs of an image; return its COCO image, instances and panoptic entries."""
    image_id, name = index + 1, f'{index:06d}.png'
    height, width = drawing.image.shape[:2]
    masks = [*drawing.masks, ~drawing.masks.any(axis=0)]
    category_ids = [*(drawing.labels + 1).tolist(), len(CLASSES) + 1]
    instances, segments = [], []
    semantic = np.zeros((height, width), dtype=np.uint8)
    ids = np.zeros((height, width, 3), dtype=np.uint8)
    for number, (mask, category_id) in enumerate(zip(masks, category_ids, strict=True), start=1):
        rle = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
        area, bbox = int(mask_utils.area(rle)), mask_utils.toBbox(rle).tolist()
        shared = {'category_id': category_id, 'area': area, 'bbox': bbox, 'iscrowd': 0}
        segments.append({'id': number, **shared})
        ids[mask, 2] = number  # the id is R + 256 G + 65536 B, and OpenCV keeps R last
        if category_id <= len(CLASSES):
            semantic[mask] = category_id
            unique = {'id': 100 * image_id + number, 'image_id': image_id}
            outline = {'size': rle['size'], 'counts': rle['counts'].decode()}
            instances.append({**unique, 'segmentation': outline, **shared})
    _write_png(folder / split / name, drawing.image, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY)
    _write_png(folder / 'semantic' / split / name, semantic)
    _write_png(folder / 'panoptic' / split / name, ids)
    record = {'id': image_id, 'file_name': name, 'height': height, 'width': width}
    return record, instances, {'image_id': image_id, 'file_name': name, 'segments_info': segments}


def _write_png(
    path: Path, image: np.ndarray, strategy: int = cv2.IMWRITE_PNG_STRATEGY_DEFAULT
) -> None:
    """Write losslessly; searching noise for repeats only costs time, so images do without."""
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, strategy]
    if not cv2.imwrite(str(path), image, options):
        raise OSError(f'{path} could not be written: is the disk full?')
