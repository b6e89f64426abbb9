"""Data samples of mmdet and mmseg as arrays."""

from typing import Any

import numpy as np
from mmengine.structures import BaseDataElement, InstanceData

from vit_backbones.cutouts import Cutout
from vit_backbones.pictures.overlay import Marks

PANOPTIC_OFFSET = 1000  # mmdet's INSTANCE_OFFSET: panoptic id = label + 1000 * instance


def marks_of(sample: BaseDataElement, score_thr: float = 0.3) -> tuple[Marks, Marks]:
    """Ground truth and prediction of a data sample, without instances of a lower score.

    Reads any of `instances`, `sem_seg` and `panoptic_seg` with the prefix `gt_` or `pred_`.
    """
    truth, prediction = (
        Marks(semantic_labels(sample, kind), *_objects(sample.get(f'{kind}_instances'), score_thr))
        for kind in ('gt', 'pred')
    )
    return truth, prediction


def _objects(instances: InstanceData | None, score_thr: float) -> tuple[np.ndarray | None, ...]:
    """Labels, boxes, masks and scores."""
    if instances is None or 'labels' not in instances:  # without annotations it is empty
        return ()
    scored = 'scores' in instances
    if scored:
        instances = instances[instances.scores >= score_thr]
    labels = as_array(instances.labels)
    boxes = as_array(instances.bboxes) if 'bboxes' in instances else np.zeros((len(labels), 4))
    return labels, boxes, masks_of(instances), as_array(instances.scores) if scored else None


def semantic_labels(sample: BaseDataElement, kind: str) -> np.ndarray | None:
    """(h, w) labels of a sample's map of a kind, `'gt'` or `'pred'`; `None` if it has none."""
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


def masks_of(instances: InstanceData) -> np.ndarray | list[Cutout] | None:
    """(num_instances, h, w), if there are masks; a list, of a large image, stays one."""
    masks = instances.get('masks')
    if masks is None or isinstance(masks, list):
        return masks
    return masks.to_ndarray() if hasattr(masks, 'to_ndarray') else as_array(masks)


def as_array(values: Any) -> np.ndarray:
    """A NumPy array of a tensor on any device, of mmdet's boxes, or of an array."""
    values = getattr(values, 'tensor', values)
    return values.detach().cpu().numpy() if hasattr(values, 'detach') else np.asarray(values)
