"""Confusion matrices and scores of single images: pixels, or instances matched by overlap.

Every matrix is (num_classes + 1, num_classes + 1), counts by true class (row) and predicted class
(column). The last row counts predicted instances without a true one; the last column counts missed
instances and pixels without a predicted class.
"""

from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement, InstanceData
from pycocotools import mask as coco_masks
from scipy.optimize import linear_sum_assignment

from vit_backbones.samples import as_array, masks_of, semantic_labels

SCORE_THR = 0.3  # lowest score of instances to count and draw
IOU_THR = 0.5


def measure(
    sample: BaseDataElement, num_classes: int, ignore_index: int
) -> tuple[np.ndarray, float]:
    """Confusion matrix and score of one image, from 0 to 1, or NaN without pixels or instances.

    The score of pixels is the mean IoU of the classes in the image; that of instances is the
    panoptic quality of all classes together, the summed IoU of right instances over the mean number
    of true and predicted ones.
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
    """The error for a data sample without ground truth, or without a prediction to compare."""
    return ValueError(
        f'{sample.get("img_path", "a data sample")} has {", ".join(sample.keys()) or "nothing"}, '
        f'but label maps or instances are needed, both predicted and true; LoadAnnotations in the '
        f'pipeline loads the true ones'
    )


def compares_pixels(sample: BaseDataElement) -> bool:
    """Whether a data sample has label maps, true and predicted, semantic or panoptic."""
    return all(semantic_labels(sample, kind) is not None for kind in ('gt', 'pred'))


def pixel_confusion(
    truth: np.ndarray, predicted: np.ndarray, num_classes: int, ignore_index: int = 255
) -> np.ndarray:
    """Count the pixels of two label maps (h, w).

    True labels outside 0 to `num_classes` - 1, and `ignore_index`, do not count; predicted labels
    outside are errors.
    """
    counted = (truth >= 0) & (truth < num_classes) & (truth != ignore_index)
    truth, predicted = truth[counted].astype(np.int64), predicted[counted].astype(np.int64)
    predicted = np.where((predicted >= 0) & (predicted < num_classes), predicted, num_classes)
    size = num_classes + 1
    return np.bincount(truth * size + predicted, minlength=size**2).reshape(size, size)


def class_metrics(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """mmseg's `IoU` and `Acc` of each class from a pixel confusion: 0 to 1, or NaN."""
    from mmseg.evaluation.metrics import IoUMetric

    areas = torch.from_numpy(matrix).double()
    right, predicted, true = areas.diag()[:-1], areas.sum(0)[:-1], areas.sum(1)[:-1]
    found = IoUMetric.total_area_to_metrics(right, true + predicted - right, predicted, true)
    return {name: found[name] for name in ('IoU', 'Acc')}


def match_instances(
    truth: InstanceData, predicted: InstanceData, num_classes: int
) -> tuple[np.ndarray, float]:
    """Match instances one to one, first by class, then by the largest overlap; as `measure`.

    Masks overlap where both sides have masks, else boxes. A match needs an IoU of 0.5. Predictions
    with a score below 0.3 do not count.
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
