"""Predictions as arrays, one small type per task."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from mmengine.structures import BaseDataElement, InstanceData

from vit_backbones.cutouts import Cutout
from vit_backbones.evaluation.prediction_files import (
    best_first,
    number_of_things,
    panoptic_segments,
)
from vit_backbones.models.trained import Trained
from vit_backbones.samples import as_array, masks_of, semantic_labels


class Objects(NamedTuple):
    """What a detector finds in an image (H, W), the highest score first.

    Attributes:
        boxes: (N, 4) float32: left, top, right, bottom in pixels.
        scores: (N,) float32, 0 to 1.
        labels: (N,) int64, from 0.
        names: (N,) str, the classes of the labels.
        masks: (N, H, W) bool, `None` if the model gives none. Of an image in tiles a list of
            `Cutout`, each of which `numpy.asarray` makes (H, W) bool.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: np.ndarray
    masks: np.ndarray | list[Cutout] | None


class LabelMap(NamedTuple):
    """What a segmenter finds.

    Attributes:
        labels: (H, W) int64, from 0.
        classes: (K,) str, names by label.
    """

    labels: np.ndarray
    classes: np.ndarray


class PanopticMap(NamedTuple):
    """What a panoptic model finds.

    Attributes:
        ids: (H, W) int64: the number of each pixel's segment, from 1; 0 where there is none.
        labels: (N,) int64, from 0: that of segment i is `labels[i - 1]`.
        names: (N,) str, the classes of the labels.
        things: (N,) bool, whether the segment is an object, not stuff.
        objects: Those that the model finds beside the map, `None` if it does not look for them.
    """

    ids: np.ndarray
    labels: np.ndarray
    names: np.ndarray
    things: np.ndarray
    objects: Objects | None


Result = Objects | LabelMap | PanopticMap


def result_of(sample: BaseDataElement, trained: Trained, score_thr: float) -> Result:
    """The arrays of a data sample of mmdet or mmseg, without objects of a lower score."""
    objects = None
    if 'pred_instances' in sample:
        objects = _objects(sample.pred_instances, trained.classes, score_thr)
    if 'pred_panoptic_seg' in sample:
        return _panoptic(sample, trained, objects)
    if objects is not None:
        return objects
    labels = semantic_labels(sample, 'pred')
    if labels is None:
        name = type(trained.model).__name__
        raise ValueError(f'{name} predicts neither objects nor a map of labels: {sample.keys()}')
    return LabelMap(labels.astype(np.int64), np.array(trained.classes, dtype=str))


def _objects(instances: InstanceData, classes: Sequence[str], score_thr: float) -> Objects:
    scores, masks = as_array(instances.scores), masks_of(instances)
    order = best_first(scores, score_thr)
    labels = as_array(instances.labels)[order]
    if isinstance(masks, list):
        masks = [masks[i] for i in order]
    elif masks is not None:
        masks = masks[order].astype(bool)
    boxes = as_array(instances.bboxes)[order]
    return Objects(boxes, scores[order], labels, _names(labels, classes), masks)


def _panoptic(sample: BaseDataElement, trained: Trained, objects: Objects | None) -> PanopticMap:
    ids = as_array(sample.pred_panoptic_seg.sem_seg).squeeze(0)
    ids, segments = panoptic_segments(ids, trained.model.panoptic_fusion_head.num_classes)
    labels = np.array([each['category_id'] - 1 for each in segments], dtype=np.int64)
    names, things = _names(labels, trained.classes), labels < number_of_things(trained)
    return PanopticMap(ids, labels, names, things, objects)


def _names(labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Names of labels; a number where the model has no name for it."""
    return np.array([classes[i] if i < len(classes) else str(i) for i in labels], dtype=str)
