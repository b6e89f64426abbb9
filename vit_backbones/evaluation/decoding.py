"""From the outputs of an exported model to label maps and objects, in NumPy.

The outputs are those of one image, (C, H, W) or (Q, ...). The image was resized to `shape` (h, w),
its upper left corner is that of the output, and `size` (height, width) is its own.
"""

import cv2
import numpy as np

from vit_backbones.position import Grid
from vit_backbones.samples import PANOPTIC_OFFSET

Objects = tuple[np.ndarray, np.ndarray, np.ndarray]


def resized(maps: np.ndarray, shape: Grid, size: Grid) -> np.ndarray:
    """Cut the padding off maps (n, H, W), and resize them to the image's own size."""
    inside = (np.ascontiguousarray(each[: shape[0], : shape[1]]) for each in maps)
    found = [cv2.resize(each, size[::-1]) for each in inside]
    return np.stack(found) if found else np.zeros((0, *size), np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probability of each, without an overflow."""
    return (1 + np.tanh(logits / 2)) / 2


def labels_of(scores: np.ndarray, shape: Grid, size: Grid) -> np.ndarray:
    """The label of each pixel, from `scores`."""
    return resized(scores, shape, size).argmax(0)


def objects_of(
    classes: np.ndarray, masks: np.ndarray, shape: Grid, size: Grid, *, top: int, num_things: int
) -> Objects:
    """Scores, labels and masks of the `top` best pairs of a query and a class, if things."""
    chances = softmax(classes)[:, :-1]
    best = np.argsort(-chances.ravel(), kind='stable')[:top]
    queries, labels = np.divmod(best, chances.shape[1])
    best, queries, labels = (each[labels < num_things] for each in (best, queries, labels))
    logits = resized(masks[queries], shape, size)
    found = logits > 0
    sure = (sigmoid(logits) * found).sum((1, 2)) / (found.sum((1, 2)) + 1e-6)
    return chances.ravel()[best] * sure, labels, found


def panoptic_of(
    classes: np.ndarray,
    masks: np.ndarray,
    shape: Grid,
    size: Grid,
    *,
    num_things: int,
    score_thr: float,
    overlap_thr: float,
    only_inside: bool,
) -> np.ndarray:
    """The class of each pixel, for things + 1000 x the number of the object; else `num_classes`."""
    chances, nothing = softmax(classes), classes.shape[1] - 1
    labels, scores = chances.argmax(-1), chances.max(-1)
    kept = np.flatnonzero((labels < nothing) & (scores > score_thr))
    shares = sigmoid(resized(masks[kept], shape, size))
    result, number = np.full(size, nothing), 0
    winners = (scores[kept, None, None] * shares).argmax(0) if len(kept) else result
    for index, label in enumerate(labels[kept]):
        won, inside = winners == index, shares[index] >= 0.5
        if not won.any() or not inside.any() or won.sum() / inside.sum() < overlap_thr:
            continue
        number += label < num_things
        thing = PANOPTIC_OFFSET * number if label < num_things else 0
        result[won & inside if only_inside else won] = label + thing
    return result
