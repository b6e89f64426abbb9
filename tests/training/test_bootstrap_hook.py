"""Standard errors over images: equal to the metric itself on drawn images."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from coco_data import coco
from mmdet.datasets.api_wrappers import COCO, COCOeval
from mmdet.evaluation import CocoMetric
from mmengine.evaluator import Evaluator
from mmengine.runner import BaseLoop
from mmseg.evaluation import IoUMetric

from vit_backbones.metrics import metric_line
from vit_backbones.training.bootstrap_hook import BootstrapHook, average_precision, iou_errors


class Loop(BaseLoop):
    """A test that is about to run."""

    def __init__(self, metric):
        self.evaluator = Evaluator([metric])

    def run(self):
        """Not here."""


def watched(metric, **options):
    """A metric that the hook watches."""
    BootstrapHook(**options).before_run(SimpleNamespace(_test_loop=Loop(metric)))
    return metric


def segmented(images=6, classes=4):
    """The results of `IoUMetric` on random maps, and a metric for them."""
    torch.manual_seed(0)
    metric = IoUMetric(iou_metrics=['mIoU'])
    metric.dataset_meta = dict(classes=[f'c{i}' for i in range(classes)])
    maps = torch.randint(0, classes, (2, images, 9, 7))
    return metric, [
        metric.intersect_and_union(a, b, classes, 255) for a, b in zip(*maps, strict=True)
    ]


def test_the_error_of_miou_is_the_deviation_of_the_metric_on_drawn_images():
    metric, results = segmented()
    plain = metric.compute_metrics(results)
    got = watched(metric, draws=50, seed=3).compute_metrics(results)
    counts = np.random.default_rng(3).multinomial(6, np.full(6, 1 / 6), size=50)
    values = [
        IoUMetric.total_area_to_metrics(
            *(sum(c * image[k] for c, image in zip(draw, results, strict=True)) for k in range(4)),
            metrics=['mIoU'],
        )['IoU']
        for draw in counts
    ]
    expected = np.std([100 * np.nanmean(each) for each in values], ddof=1)
    assert got == plain | dict(mIoU_se=pytest.approx(expected, rel=1e-6))


def test_equal_images_have_no_error():
    _, results = segmented(images=1)
    assert iou_errors(results * 5, np.random.default_rng(0), 20)['mIoU'] == pytest.approx(
        0, abs=1e-9
    )


def found_objects(content):
    """Detections: of each object, shifted by its number, and a false one in each image."""
    found = []
    for each in content['annotations']:
        x, y, w, h = each['bbox']
        found.append(
            dict(
                image_id=each['image_id'],
                category_id=each['category_id'],
                bbox=[x + each['id'] % 5, y, w, h],
                score=1 / (each['id'] + 1),
            )
        )
    wrong = dict(category_id=1, bbox=[60, 40, 20, 20])
    return [*found, *(wrong | dict(image_id=each['id'], score=0.4) for each in content['images'])]


def evaluated(content, found):
    """COCO's evaluation of boxes."""
    truth = COCO()
    truth.dataset = content
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(found), 'bbox')
    evaluation.params.maxDets = [1, 10, 100]
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


@pytest.mark.parametrize('images', [[0, 1, 2, 3], [2, 2, 0, 3], [1, 1, 1, 1], [3]])
def test_map_of_drawn_images_is_that_of_a_file_with_copies(images):
    content = coco()
    found = found_objects(content)
    copied = dict(content, images=[], annotations=[])
    detections = []
    for number, index in enumerate(images):
        image = content['images'][index]
        copied['images'].append(image | dict(id=number))
        for target, source in (
            (copied['annotations'], content['annotations']),
            (detections, found),
        ):
            target += [e | dict(image_id=number) for e in source if e['image_id'] == image['id']]
    for number, each in enumerate(copied['annotations'], start=1):
        each['id'] = number
    expected = evaluated(copied, detections).stats[0]
    assert average_precision(evaluated(content, found), np.array(images)) == pytest.approx(expected)


def test_the_error_of_map_comes_with_mmdet_s_own_values(tmp_path):
    content = coco()
    (tmp_path / 'boxes.json').write_text(json.dumps(content))

    def metric():
        made = CocoMetric(ann_file=str(tmp_path / 'boxes.json'), metric='bbox')
        made.dataset_meta = dict(classes=('cat', 'dog', 'cow'))
        made.cat_ids, made.img_ids = (
            made._coco_api.getCatIds(made.dataset_meta['classes']),
            [*range(4)],
        )
        return made

    results = []
    for image in range(4):
        each = [d for d in found_objects(content) if d['image_id'] == image]
        boxes = np.array([d['bbox'] for d in each], float)
        boxes[:, 2:] += boxes[:, :2]
        labels = np.array([d['category_id'] - 1 for d in each])
        scores = np.array([d['score'] for d in each])
        results.append(
            (dict(img_id=image), dict(img_id=image, bboxes=boxes, labels=labels, scores=scores))
        )
    plain = metric().compute_metrics(results)
    got = watched(metric(), draws=30).compute_metrics(results)
    error = got.pop('bbox_mAP_se')
    assert got == plain
    drawn = np.random.default_rng(0)
    whole = evaluated(content, found_objects(content))
    values = [average_precision(whole, drawn.integers(4, size=4)) for _ in range(30)]
    assert error == pytest.approx(np.std(values, ddof=1))
    assert metric_line('x', {'x': 0.329, 'x_se': 0.0123}) == 'x 0.329, standard error 0.012'


def test_other_metrics_and_other_arguments_are_refused(tmp_path):
    class Own(IoUMetric):
        pass

    assert 'compute_metrics' in vars(watched(Own(iou_metrics=['mIoU'])))
    with pytest.raises(
        ValueError, match='known for IoUMetric and CocoMetric, and test_evaluator has'
    ):
        watched(dict(type='DumpResults', out_file_path='x.pkl'))
    with pytest.raises(ValueError, match='draws must be'):
        BootstrapHook(draws=1)
    (tmp_path / 'boxes.json').write_text(json.dumps(coco()))
    with pytest.raises(ValueError, match='use_mp_eval=False'):
        watched(CocoMetric(ann_file=str(tmp_path / 'boxes.json'), use_mp_eval=True))


def test_a_training_with_the_hook_builds_no_test():
    runner = SimpleNamespace(_test_loop=dict(type='TestLoop'))  # `test_loop` would be an error
    BootstrapHook().before_run(runner)
    assert vars(runner) == dict(_test_loop=dict(type='TestLoop'))
