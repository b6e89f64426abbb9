"""Draw label maps and objects over an image: ground truth and prediction side by side."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw

from vit_backbones.cutouts import Cutout, Place
from vit_backbones.pictures.canvas import beside, font, printable

_SMALLEST_SIDE = 320  # smaller images are enlarged, so that names can be read
_LARGEST_SIDE = 4096  # but not beyond this
_MOST_NAMES = 25  # those of more objects would cover each other
_ALPHA = 0.5
_OUTLINE = 2  # pixels


class Marks(NamedTuple):
    """Labels of an image, true or predicted.

    Attributes:
        label_map: (h, w) labels of pixels, drawn at the size of the image.
        labels: (n,) labels of objects.
        boxes: (n, 4) left, top, right, bottom in pixels of the image.
        masks: (n, h, w), or a list of `Cutout`; drawn instead of the boxes.
        scores: (n,) 0 to 1, written behind the names.
    """

    label_map: np.ndarray | None = None
    labels: np.ndarray | None = None
    boxes: np.ndarray | None = None
    masks: np.ndarray | list[Cutout] | None = None
    scores: np.ndarray | None = None


def draw_sample(
    image: np.ndarray, truth: Marks, prediction: Marks, classes: Sequence[str], palette: np.ndarray
) -> np.ndarray:
    """Draw image, ground truth and prediction side by side: (s * H, 3 * s * W + 8, 3) uint8 RGB.

    Args:
        image: (H, W, 3) uint8 RGB; a small one is enlarged by s > 1.
        truth: Marks of the second panel.
        prediction: Marks of the third panel.
        classes: Names by label.
        palette: (num_colors, 3) uint8 RGB by label.
    """
    drawn = (draw_overlay(image, marks, classes, palette) for marks in (truth, prediction))
    return beside([enlarged(image), *drawn])


def draw_overlay(
    image: np.ndarray, marks: Marks, classes: Sequence[str], palette: np.ndarray
) -> np.ndarray:
    """Draw marks over an image (H, W, 3), as `draw_sample`: (s * H, s * W, 3)."""
    panel = enlarged(image)
    if marks.label_map is not None:
        _paint_labels(panel, marks.label_map, palette)
    if marks.labels is None:
        return panel
    scores = np.ones(len(marks.labels)) if marks.scores is None else marks.scores
    names = []
    for i in np.argsort(scores, kind='stable'):  # the highest score on top
        label = marks.labels[i]
        color = palette[label % len(palette)]
        if marks.masks is None:
            corner = _paint_box(panel, marks.boxes[i] * (len(panel) // len(image)), color)
        else:
            corner = _paint_mask(panel, marks.masks[i], color)
        score = '' if marks.scores is None else f' {scores[i]:.2f}'
        name = printable(classes[label]) if label < len(classes) else label
        names.append((corner, f'{name}{score}'))
    return _with_names(panel, names) if len(names) <= _MOST_NAMES else panel


def enlarged(image: np.ndarray) -> np.ndarray:
    """Copy an image (H, W, 3), enlarged by a whole number if it is too small for names."""
    height, width = image.shape[:2]
    scale = min(-(-_SMALLEST_SIDE // min(height, width)), _LARGEST_SIDE // max(height, width))
    return image.repeat(max(1, scale), axis=0).repeat(max(1, scale), axis=1)


def with_legend(
    picture: np.ndarray, labels: Iterable[int], classes: Sequence[str], palette: np.ndarray
) -> np.ndarray:
    """Write the classes of labels below a picture, if there are any: (H, W, 3) to (H + h, W, 3)."""
    places, x, y = [], 6, 0
    for label in sorted(label for label in labels if 0 <= label < len(classes)):
        width = 30 + round(font(12).getlength(printable(classes[label])))
        if x > 6 and x + width > picture.shape[1]:
            x, y = 6, y + 20
        places.append((x, y, label))
        x += width
    if not places:
        return picture
    strip = Image.new('RGB', (picture.shape[1], y + 20), 'white')
    draw = ImageDraw.Draw(strip)
    for x, y, label in places:
        draw.rectangle((x, y + 4, x + 12, y + 16), fill=tuple(palette[label].tolist()))
        draw.text((x + 18, y + 15), printable(classes[label]), 'black', font(12), anchor='ls')
    return np.vstack([picture, np.asarray(strip)])


def shown_labels(marks: Iterable[Marks]) -> set[int]:
    """Labels in maps and objects."""
    found = [values for each in marks for values in each[:2] if values is not None]
    return {int(label) for values in found for label in np.unique(values)}


def _paint_labels(panel: np.ndarray, labels: np.ndarray, palette: np.ndarray) -> None:
    """Tint each pixel by its label, in place; labels without a colour, such as 255, stay clear."""
    labels = _fit(labels.astype(np.int32), panel)
    known = (labels >= 0) & (labels < len(palette)) & (labels != 255)
    _tint(panel, known, palette[labels[known]])


def _paint_box(panel: np.ndarray, box: np.ndarray, color: np.ndarray) -> tuple[int, int]:
    """Draw a box in place; gives its upper left corner."""
    left, top, right, bottom = box.round().astype(int).tolist()
    cv2.rectangle(panel, (left, top), (right, bottom), color.tolist(), 2)
    return left, top


def _paint_mask(panel: np.ndarray, mask: np.ndarray | Cutout, color: np.ndarray) -> tuple[int, int]:
    """Tint and outline a mask in place; gives the upper left corner of its box."""
    if isinstance(mask, Cutout):
        part = mask.with_rim(_OUTLINE)
        scale = len(panel) // mask.size[0]
        place = Place(*(scale * each for each in part.place))
        x, y = _paint_mask(place.of(panel), part.pixels, color)
        return x + place.left, y + place.top
    mask = _fit(mask.astype(np.uint8), panel)
    _tint(panel, mask > 0, color)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(panel, outlines, -1, color.tolist(), _OUTLINE)
    return cv2.boundingRect(mask)[:2]


def _with_names(panel: np.ndarray, names: Iterable[tuple[tuple[int, int], str]]) -> np.ndarray:
    """Write white letters with a dark rim, readable on anything, at corners of objects."""
    picture = Image.fromarray(panel)
    draw = ImageDraw.Draw(picture)
    rim = dict(stroke_width=1, stroke_fill='black')
    for (x, y), name in names:
        draw.text((x + 3, y + 13), name, 'white', font(14), anchor='ls', **rim)
    return np.asarray(picture)


def _tint(panel: np.ndarray, where: np.ndarray, rgb: np.ndarray) -> None:
    panel[where] = ((1 - _ALPHA) * panel[where] + _ALPHA * rgb).astype(np.uint8)


def _fit(labels: np.ndarray, panel: np.ndarray) -> np.ndarray:
    """Resize (h, w) labels to the size of the panel."""
    size = panel.shape[1], panel.shape[0]
    return np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
