"""Confusion matrices and scores of single images: pixels, or instances matched by overlap.

Every matrix is (num_classes + 1, num_classes + 1), counts by true class (row) and predicted class
(column). The last row and column are those of no class: predicted instances without a true one,
missed ones, and pixels that no class was predicted for.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from mmengine.structures import BaseDataElement, InstanceData
from pycocotools import mask as coco_masks
from scipy.optimize import linear_sum_assignment

from vit_backbones.pictures.overlay import as_array, masks_of, semantic_labels

SCORE_THR = 0.3  # of instances that count and are drawn
IOU_THR = 0.5
_NUMBERED = 30  # classes up to which the cells hold their numbers
_SHORT = EngFormatter(places=0, sep='')  # 21k for 21153


def measure(
    sample: BaseDataElement, num_classes: int, ignore_index: int
) -> tuple[np.ndarray, float]:
    """Confusion matrix and score of one image.

    Args:
        sample: An mmdet or mmseg data sample with ground truth and prediction.
        num_classes: Of the dataset.
        ignore_index: Label of pixels that do not count.

    Returns:
        The matrix, and from 0 to 1 the mean IoU of the classes in the image or, of instances, the
        panoptic quality without regard to classes: the sum of the IoU of right ones over the mean
        of the numbers of true and predicted ones. NaN where nothing is to be found or ignored.

    Raises:
        ValueError: If it lacks one of them, as of a pipeline without `LoadAnnotations`.
    """
    if compares_pixels(sample):
        truth, predicted = (semantic_labels(sample, kind) for kind in ('gt', 'pred'))
        matrix = pixel_confusion(truth, predicted, num_classes, ignore_index)
        iou = class_metrics(matrix)['IoU']
        return matrix, float(np.nanmean(iou)) if not np.isnan(iou).all() else float('nan')
    if 'gt_instances' in sample and 'pred_instances' in sample:
        return match_instances(sample.gt_instances, sample.pred_instances, num_classes)
    raise unlabelled(sample)


def unlabelled(sample: BaseDataElement) -> ValueError:
    """The error of a data sample that lacks its ground truth, or a prediction to compare."""
    return ValueError(
        f'{sample.get("img_path", "a data sample")} has {", ".join(sample.keys()) or "nothing"} '
        f'alone: label maps or instances are needed, both predicted and true; LoadAnnotations in '
        f'the pipeline gives the latter'
    )


def compares_pixels(sample: BaseDataElement) -> bool:
    """Whether a data sample has label maps, true and predicted, semantic or panoptic."""
    return all(semantic_labels(sample, kind) is not None for kind in ('gt', 'pred'))


def pixel_confusion(
    truth: np.ndarray, predicted: np.ndarray, num_classes: int, ignore_index: int = 255
) -> np.ndarray:
    """Count pixels.

    Args:
        truth: (h, w) labels; those without a class do not count.
        predicted: (h, w) labels; those without a class are errors.
        num_classes: Labels run from 0 to below it.
        ignore_index: Label that does not count, even if it is that of a class.
    """
    counted = (truth >= 0) & (truth < num_classes) & (truth != ignore_index)
    truth, predicted = truth[counted].astype(np.int64), predicted[counted].astype(np.int64)
    predicted = np.where((predicted >= 0) & (predicted < num_classes), predicted, num_classes)
    size = num_classes + 1
    return np.bincount(truth * size + predicted, minlength=size**2).reshape(size, size)


def class_metrics(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """mmseg's `IoU` and `Acc` of each class from a pixel confusion, 0 to 1, NaN of nothing."""
    from mmseg.evaluation.metrics import IoUMetric

    areas = torch.from_numpy(matrix).double()
    right, predicted, true = areas.diag()[:-1], areas.sum(0)[:-1], areas.sum(1)[:-1]
    found = IoUMetric.total_area_to_metrics(right, true + predicted - right, predicted, true)
    return {name: found[name] for name in ('IoU', 'Acc')}


def match_instances(
    truth: InstanceData, predicted: InstanceData, num_classes: int
) -> tuple[np.ndarray, float]:
    """Match instances one to one, so that overlaps are largest and, before that, classes agree.

    Overlaps are those of masks where both have masks, else of boxes; what overlaps by less than an
    IoU of 0.5 is no match. Predictions with a score below 0.3 do not count.

    Args:
        truth: With `labels`, `bboxes` and maybe `masks`.
        predicted: With `scores` too.
        num_classes: Of the dataset.

    Returns:
        As `measure`.
    """
    predicted = predicted[predicted.scores >= SCORE_THR]
    labels, found = as_array(truth.labels), as_array(predicted.labels)
    overlaps = _overlaps(truth, predicted)  # (num_true, num_predicted)
    alike = labels[:, None] == found
    rows, columns = linear_sum_assignment((overlaps >= IOU_THR) * (overlaps + alike), maximize=True)
    matched = overlaps[rows, columns] >= IOU_THR
    rows, columns = rows[matched], columns[matched]
    matrix = np.zeros((num_classes + 1,) * 2, dtype=np.int64)
    np.add.at(matrix, (labels[rows], found[columns]), 1)
    np.add.at(matrix, (np.delete(labels, rows), num_classes), 1)
    np.add.at(matrix, (num_classes, np.delete(found, columns)), 1)
    number = (len(labels) + len(found)) / 2
    right = (overlaps * alike)[rows, columns].sum()
    return matrix, right / number if number else float('nan')


def _overlaps(truth: InstanceData, predicted: InstanceData) -> np.ndarray:
    """(num_true, num_predicted) IoU."""
    if not len(truth) or not len(predicted):
        return np.zeros((len(truth), len(predicted)))
    encode = _runs if 'masks' in truth and 'masks' in predicted else _boxes
    return coco_masks.iou(encode(predicted), encode(truth), [0] * len(truth)).T


def _runs(instances: InstanceData) -> list[dict[str, Any]]:
    masks = masks_of(instances).transpose(1, 2, 0)  # (h, w, num_instances)
    return coco_masks.encode(np.asfortranarray(masks.astype(np.uint8)))


def _boxes(instances: InstanceData) -> np.ndarray:
    """(n, 4) x, y, width, height."""
    boxes = as_array(instances.bboxes).astype(np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def draw_confusion(matrix: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Draw a confusion matrix in percent of each row, whose number is told.

    An empty `none` is left out.

    Args:
        matrix: (n + 1, n + 1) counts.
        classes: n names.
        title: What was counted.
    """
    names = [*classes, 'none']
    if not matrix[-1].any() and not matrix[:, -1].any():
        matrix, names = matrix[:-1, :-1], names[:-1]
    share = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = min(20, 3 + 0.42 * len(names))
    figure = Figure(figsize=(side + 1.2, side), dpi=100, layout='constrained')
    axes = figure.subplots()
    image = axes.imshow(share, cmap='Blues', vmin=0, vmax=100)
    small = 9 if len(names) <= _NUMBERED else 6
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=small)
    counts = [
        f'{name} ({_SHORT(number)})' for name, number in zip(names, matrix.sum(1), strict=True)
    ]
    axes.set_yticks(range(len(names)), counts, fontsize=small)
    axes.set(xlabel='predicted', ylabel='true')
    axes.set_title(title, fontsize=10, wrap=True)
    if len(names) <= _NUMBERED:
        for (row, column), value in np.ndenumerate(share):
            if value >= 0.5 or (row == column < len(classes) and matrix[row].any()):
                color = 'white' if value > 50 else 'black'
                told = dict(ha='center', va='center', color=color, fontsize=8)
                axes.text(column, row, f'{value:.0f}', **told)
    figure.colorbar(image, ax=axes, label='% of the row', shrink=0.8)
    return figure
