"""Confusion matrices and scores of single images, beside the libraries' own."""

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData
from mmseg.evaluation.metrics import IoUMetric
from mmseg.structures import SegDataSample

from vit_backbones.evaluation.confusion import (
    class_metrics,
    match_instances,
    measure,
    pixel_confusion,
)


def draw_maps(seed=0):
    """True labels 0-4 and 255, predicted ones 0-3 and 7, which is none."""
    generator = np.random.default_rng(seed)
    truth = generator.choice([0, 1, 2, 3, 4, 255], (37, 53))
    return truth, generator.choice([0, 1, 2, 3, 7], (37, 53))


def test_pixels__equal_scikit_learns():
    metrics = pytest.importorskip('sklearn.metrics')
    truth, predicted = draw_maps()
    counted = truth != 255
    found = np.where(predicted == 7, 5, predicted)
    wanted = metrics.confusion_matrix(truth[counted], found[counted], labels=range(6))
    np.testing.assert_array_equal(pixel_confusion(truth, predicted, 5), wanted)


def test_pixels__an_ignored_class_does_not_count():
    truth, predicted = draw_maps()
    matrix = pixel_confusion(truth, predicted, 5, ignore_index=2)
    assert not matrix[2].any()
    assert matrix.sum() == np.isin(truth, (0, 1, 3, 4)).sum()


def test_class_metrics__are_those_of_mmseg():
    metric = IoUMetric()
    metric.dataset_meta = dict(classes=[*'abcde'])
    total = np.zeros((6, 6), dtype=int)
    for seed in range(3):
        truth, predicted = draw_maps(seed)
        sample = {
            'gt_sem_seg': {'data': torch.from_numpy(truth)[None]},
            'pred_sem_seg': {'data': torch.from_numpy(predicted)[None]},
        }
        metric.process({}, [sample])
        total += pixel_confusion(truth, predicted, 5)
    wanted = metric.compute_metrics(metric.results)
    found = class_metrics(total)
    assert 100 * np.nanmean(found['IoU']) == pytest.approx(wanted['mIoU'], abs=0.01)
    assert 100 * np.nanmean(found['Acc']) == pytest.approx(wanted['mAcc'], abs=0.01)


def test_measure__scores_an_image_by_the_classes_in_it():
    truth, predicted = torch.tensor([[0, 0, 1, 255]]), torch.tensor([[0, 1, 1, 1]])
    sample = SegDataSample()
    sample.set_data(dict(gt_sem_seg=_pixels(truth), pred_sem_seg=_pixels(predicted)))
    matrix, score = measure(sample, 3, 255)
    assert score == pytest.approx(0.5)  # IoU 1 / 2 of both, class 2 is not there
    assert matrix[:3, :3].tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


def _pixels(labels):
    from mmengine.structures import PixelData

    return PixelData(data=labels[None])


def instances(labels, boxes, scores=None, masks=None):
    found = InstanceData(labels=torch.tensor(labels, dtype=torch.int64))
    found.bboxes = torch.tensor(boxes).float()
    if scores is not None:
        found.scores = torch.tensor(scores)
    if masks is not None:
        found.masks = masks
    return found


def test_instances__matched_missed_and_invented():
    truth = instances([0, 1, 1], [[0, 0, 10, 10], [20, 0, 30, 10], [50, 50, 60, 60]])
    boxes = [[0, 0, 10, 8], [20, 0, 30, 10], [80, 80, 90, 90], [50, 50, 60, 60]]
    predicted = instances([0, 0, 1, 1], boxes, [0.9, 0.8, 0.7, 0.2])
    matrix, score = match_instances(truth, predicted, 2)
    # right (IoU 0.8), another class, missed (score below 0.3), and one of nothing
    assert matrix.tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]
    assert score == pytest.approx(0.8 / 3)


def test_instances__the_right_class_is_preferred_to_the_larger_overlap():
    truth = instances([1], [[0, 0, 10, 10]])
    predicted = instances([0, 1], [[0, 0, 10, 10], [0, 0, 10, 8]], [0.9, 0.9])
    matrix, _ = match_instances(truth, predicted, 2)
    assert matrix.tolist() == [[0, 0, 0], [0, 1, 0], [1, 0, 0]]


def test_instances__masks_count_rather_than_boxes():
    masks = np.zeros((2, 8, 12), np.uint8)
    masks[0, :, :3] = 1
    masks[1, 7] = masks[1, :, 11] = 1
    truth = instances([0], [[0, 0, 12, 8]], masks=BitmapMasks(masks[:1], 8, 12))
    predicted = instances([0], [[0, 0, 12, 8]], [0.9], masks=torch.from_numpy(masks[1:]) > 0)
    assert match_instances(truth, predicted, 1)[0].tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(('num_true', 'num_found', 'score'), [(0, 0, None), (2, 0, 0), (0, 2, 0)])
def test_instances__of_empty_images(num_true, num_found, score):
    box = [0, 0, 9, 9]
    truth = instances([0] * num_true, np.array([box] * num_true).reshape(-1, 4))
    boxes = np.array([box] * num_found).reshape(-1, 4)
    predicted = instances([0] * num_found, boxes, [0.9] * num_found)
    matrix, found = match_instances(truth, predicted, 1)
    assert matrix.tolist() == [[0, num_true], [num_found, 0]]
    assert np.isnan(found) if score is None else found == score


def test_measure__without_annotations_is_refused():
    sample = DetDataSample(metainfo=dict(img_path='a.png'))
    sample.pred_instances = instances([0], [[0, 0, 9, 9]], [0.9])
    with pytest.raises(ValueError, match=r'a.png has .*pred_instances, but .*LoadAnnotations'):
        measure(sample, 1, 255)
