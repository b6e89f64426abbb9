"""Drawing a data sample of mmdet or mmseg: image, ground truth and prediction side by side."""

from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np
from mmengine.structures import BaseDataElement, InstanceData

PANOPTIC_OFFSET = 1000  # mmdet's INSTANCE_OFFSET: panoptic id = label + 1000 * instance
_SMALLEST_SIDE = 320  # smaller images are enlarged, so that labels can be read
_LARGEST_SIDE = 4096  # but not beyond this
_MOST_NAMES = 25  # among more objects they would cover each other
_ALPHA = 0.5
_KINDS = ('gt', 'pred')
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_sample(
    image: np.ndarray,
    sample: BaseDataElement,
    classes: Sequence[str],
    palette: np.ndarray,
    *,
    score_thr: float = 0.3,
) -> np.ndarray:
    """Draw one data sample.

    Args:
        image: (H, W, 3) uint8, BGR.
        sample: An mmdet or mmseg data sample with any of `gt_instances`, `gt_sem_seg`,
            `pred_instances`, `pred_sem_seg`, `pred_panoptic_seg`.
        classes: Names by label.
        palette: (num_colors, 3) uint8, RGB by label.
        score_thr: Predicted instances with a lower score are left out.

    Returns:
        (s * H, 3 * s * W + 8, 3) uint8, BGR: image, ground truth, prediction, with s >= 1 so that
        small images become readable.
    """
    panels = [enlarged(image)]
    panels += [draw_overlay(image, sample, kind, classes, palette, score_thr) for kind in _KINDS]
    gap = np.full((len(panels[0]), 4, 3), 255, np.uint8)
    return np.hstack([panels[0], gap, panels[1], gap, panels[2]])


def draw_overlay(
    image: np.ndarray,
    sample: BaseDataElement,
    kind: str,
    classes: Sequence[str],
    palette: np.ndarray,
    score_thr: float = 0.3,
) -> np.ndarray:
    """Draw what a data sample holds of one kind over its image.

    Args:
        image: (H, W, 3) uint8, BGR.
        sample: As for `draw_sample`.
        kind: `'gt'` or `'pred'`.
        classes: Names by label.
        palette: (num_colors, 3) uint8, RGB by label.
        score_thr: As for `draw_sample`.

    Returns:
        (s * H, s * W, 3) uint8, BGR, as `enlarged`.
    """
    panel = enlarged(image)
    labels = semantic_labels(sample, kind)
    if labels is not None:
        _paint_labels(panel, labels, palette)
    instances = sample.get(f'{kind}_instances')
    if instances is not None and 'labels' in instances:  # without annotations it is empty
        scale = len(panel) // len(image)
        _paint_instances(panel, instances, classes, palette, scale, score_thr)
    return panel


def enlarged(image: np.ndarray) -> np.ndarray:
    """A copy of an image (H, W, 3), by a whole number larger where it is too small for letters."""
    height, width = image.shape[:2]
    scale = min(-(-_SMALLEST_SIDE // min(height, width)), _LARGEST_SIDE // max(height, width))
    scale = max(1, scale)
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)


def with_legend(
    picture: np.ndarray,
    sample: BaseDataElement,
    classes: Sequence[str],
    palette: np.ndarray,
    score_thr: float = 0.3,
) -> np.ndarray:
    """Write the classes that a sample shows below its picture.

    Args:
        picture: (H, W, 3) uint8, BGR.
        sample: As for `draw_sample`.
        classes: Names by label.
        palette: (num_colors, 3) uint8, RGB by label.
        score_thr: As for `draw_sample`.

    Returns:
        (H + h, W, 3); the picture itself where there is nothing to tell.
    """
    return add_legend(picture, shown_labels(sample, len(classes), score_thr), classes, palette)


def add_legend(
    picture: np.ndarray, labels: Iterable[int], classes: Sequence[str], palette: np.ndarray
) -> np.ndarray:
    """Write classes below a picture, as `with_legend`.

    Args:
        picture: (H, W, 3) uint8, BGR.
        labels: Of the classes.
        classes: Names by label.
        palette: (num_colors, 3) uint8, RGB by label.
    """
    places, x, y = [], 6, 0
    for label in labels:
        width = 30 + cv2.getTextSize(classes[label], _FONT, 0.45, 1)[0][0]
        if x > 6 and x + width > picture.shape[1]:
            x, y = 6, y + 20
        places.append((x, y, label))
        x += width
    if not places:
        return picture
    strip = np.full((y + 20, picture.shape[1], 3), 255, np.uint8)
    for x, y, label in places:
        cv2.rectangle(strip, (x, y + 4), (x + 12, y + 16), palette[label][::-1].tolist(), -1)
        corner = (x + 18, y + 15)
        cv2.putText(strip, classes[label], corner, _FONT, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([picture, strip])


def shown_labels(sample: BaseDataElement, num_classes: int, score_thr: float) -> list[int]:
    """Labels below `num_classes` in a sample's maps and instances, ascending."""
    shown: set[int] = set()
    for kind in _KINDS:
        labels = semantic_labels(sample, kind)
        if labels is not None:
            shown.update(np.unique(labels).tolist())
        instances = sample.get(f'{kind}_instances')
        if instances is not None and 'labels' in instances:
            labels = as_array(instances.labels)
            shown.update(labels[_scores(instances) >= score_thr].tolist())
    return sorted(int(label) for label in shown if 0 <= label < num_classes)


def semantic_labels(sample: BaseDataElement, kind: str) -> np.ndarray | None:
    """Labels of a semantic or panoptic map.

    Args:
        sample: An mmdet or mmseg data sample.
        kind: `'gt'` or `'pred'`.

    Returns:
        (h, w) labels, `None` if the sample has no such map.
    """
    panoptic = sample.get(f'{kind}_panoptic_seg')
    if panoptic is not None:
        return _flat(panoptic.sem_seg) % PANOPTIC_OFFSET
    semantic = sample.get(f'{kind}_sem_seg')
    if semantic is None:
        return None
    return _flat(semantic.get('data', semantic.get('sem_seg')))


def _flat(values: Any) -> np.ndarray:
    """(1, h, w) or (h, w) to (h, w)."""
    labels = as_array(values)
    return labels.reshape(labels.shape[-2:])


def _paint_labels(panel: np.ndarray, labels: np.ndarray, palette: np.ndarray) -> None:
    """Tint each pixel by its label, in place; labels without a colour, as 255, stay clear."""
    labels = _fit(labels.astype(np.int32), panel)
    known = (labels >= 0) & (labels < len(palette)) & (labels != 255)
    _tint(panel, known, palette[labels[known]])


def _paint_instances(
    panel: np.ndarray,
    instances: InstanceData,
    classes: Sequence[str],
    palette: np.ndarray,
    scale: int,
    score_thr: float,
) -> None:
    """Tint masks and draw boxes, outlines and names, in place."""
    labels = as_array(instances.labels)
    scores = _scores(instances)
    boxes = as_array(instances.bboxes) if 'bboxes' in instances else np.zeros((len(labels), 4))
    masks = masks_of(instances)
    with_names = (scores >= score_thr).sum() <= _MOST_NAMES
    for i in np.argsort(scores, kind='stable'):  # the surest on top
        if scores[i] < score_thr:
            continue
        color = palette[labels[i] % len(palette)]
        x, y, right, bottom = (boxes[i] * scale).round().astype(int).tolist()
        if masks is None:
            cv2.rectangle(panel, (x, y), (right, bottom), color[::-1].tolist(), 2)
        else:
            mask = _fit(masks[i].astype(np.uint8), panel)
            _tint(panel, mask > 0, color)
            outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(panel, outlines, -1, color[::-1].tolist(), 2)
            x, y = cv2.boundingRect(mask)[:2]
        name = classes[labels[i]] if labels[i] < len(classes) else str(labels[i])
        text = f'{name} {scores[i]:.2f}' if 'scores' in instances else name
        if with_names:
            _write(panel, text, (x + 2, y + 12))


def _write(panel: np.ndarray, text: str, corner: tuple[int, int]) -> None:
    """White letters with a dark rim, readable on anything."""
    for color, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(panel, text, corner, _FONT, 0.5, color, thickness, cv2.LINE_AA)


def _tint(panel: np.ndarray, where: np.ndarray, rgb: np.ndarray) -> None:
    panel[where] = ((1 - _ALPHA) * panel[where] + _ALPHA * rgb[..., ::-1]).astype(np.uint8)


def _fit(labels: np.ndarray, panel: np.ndarray) -> np.ndarray:
    """(h, w) labels at the panel's size."""
    height, width = panel.shape[:2]
    return cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)


def _scores(instances: InstanceData) -> np.ndarray:
    """(num_instances,), 1 for those of the ground truth."""
    return as_array(instances.get('scores', np.ones(len(instances.labels))))


def masks_of(instances: InstanceData) -> np.ndarray | None:
    """(num_instances, h, w), if there are masks."""
    masks = instances.get('masks')
    if masks is None:
        return None
    return masks.to_ndarray() if hasattr(masks, 'to_ndarray') else as_array(masks)


def as_array(values: Any) -> np.ndarray:
    """A NumPy array of what may be a tensor, on any device, or mmdet's boxes."""
    values = getattr(values, 'tensor', values)
    return values.detach().cpu().numpy() if hasattr(values, 'detach') else np.asarray(values)
