"""The stand-in for `panopticapi`: panoptic quality of a worked example, through mmdet."""

import importlib
import json
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from vit_backbones.hosts import mmcv_loader, panoptic_api
from vit_backbones.hosts.panoptic_api import PQStat, id2rgb, rgb2id

CATEGORIES = [
    {'id': 1, 'name': 'person', 'isthing': 1},
    {'id': 2, 'name': 'car', 'isthing': 1},
    {'id': 7, 'name': 'sky', 'isthing': 0},
]
# Runs of (segment id, number of pixels), one row of 10 pixels after another; 0 is void.
TRUTH = [(1, 10), (2, 10), (3, 6), (0, 4), (4, 6), (5, 4), (0, 10), (6, 10)]
# The ids of predictions are mmdet's: label + 1000 * instance.
PREDICTION = [
    (1000, 8), (0, 2),  # person, 8 of 10: matched with IoU 0.8
    (2000, 5), (0, 5),  # person, half of segment 2: IoU 0.5 is no match
    (2, 10),  # sky over 6 of sky and 4 of void: void does not count, IoU 1
    (1001, 6), (2001, 3), (0, 1),  # car within the crowd of cars: ignored; car, IoU 0.75
    (3000, 10),  # person over void: ignored
    (4000, 10),  # person where a car is
]  # fmt: skip
# Segment id to label, is crowd.
TRUE_SEGMENTS = {1: (0, 0), 2: (0, 0), 3: (2, 0), 4: (1, 1), 5: (1, 0), 6: (1, 0)}
# Person: 1 matched (0.8), 2 false (2000, 4000), 1 missed (2). Car: 1 matched (0.75), 0 false,
# 1 missed (6). Sky: 1 matched.
EXPECTED = {
    'PQ': 100 * (0.8 / 2.5 + 0.75 / 1.5 + 1) / 3,
    'SQ': 100 * (0.8 + 0.75 + 1) / 3,
    'RQ': 100 * (1 / 2.5 + 1 / 1.5 + 1) / 3,
    'PQ_th': 100 * (0.8 / 2.5 + 0.75 / 1.5) / 2,
    'SQ_th': 100 * (0.8 + 0.75) / 2,
    'RQ_th': 100 * (1 / 2.5 + 1 / 1.5) / 2,
    'PQ_st': 100.0,
    'SQ_st': 100.0,
    'RQ_st': 100.0,
}


@pytest.fixture(scope='module')
def metrics() -> ModuleType:
    mmcv_loader.install()
    panoptic_api.install()
    return importlib.import_module('mmdet.evaluation.metrics')


def draw(runs: list[tuple[int, int]]) -> np.ndarray:
    return np.repeat(*map(list, zip(*runs, strict=True))).reshape(6, 10)


def write_truth(folder: Path, ids: np.ndarray) -> None:
    mmcv = importlib.import_module('mmcv')
    mmcv.imwrite(id2rgb(ids)[..., ::-1], str(folder / 'a.png'))
    segments = [
        {
            'id': segment,
            'category_id': CATEGORIES[label]['id'],
            'iscrowd': iscrowd,
            'area': int((ids == segment).sum()),
        }
        for segment, (label, iscrowd) in TRUE_SEGMENTS.items()
    ]
    annotation = {
        'images': [{'id': 5, 'file_name': 'a.jpg', 'height': 6, 'width': 10}],
        'annotations': [{'image_id': 5, 'file_name': 'a.png', 'segments_info': segments}],
        'categories': CATEGORIES,
    }
    (folder / 'truth.json').write_text(json.dumps(annotation))


def evaluate(metrics: ModuleType, folder: Path, **options: object) -> dict[str, float]:
    """Lets mmdet's metric judge PREDICTION, in which mmdet's void is the number of classes."""
    write_truth(folder, draw(TRUTH))
    metric = metrics.CocoPanopticMetric(
        ann_file=str(folder / 'truth.json'), seg_prefix=str(folder), classwise=True, **options
    )
    names = tuple(category['name'] for category in CATEGORIES)
    metric.dataset_meta = {'classes': names, 'thing_classes': names[:2], 'stuff_classes': names[2:]}
    prediction = torch.from_numpy(draw(PREDICTION))[None]
    prediction[prediction == 0] = len(names)
    sample = {
        'img_id': 5,
        'img_path': 'a.jpg',
        'ori_shape': (6, 10),
        'pred_panoptic_seg': {'sem_seg': prediction},
    }
    metric.process({}, [sample])
    return metric.evaluate(size=1)


def test_worked_example_through_mmdet(metrics: ModuleType, tmp_path: Path) -> None:
    result = evaluate(metrics, tmp_path)
    assert result == {f'coco_panoptic/{k}': pytest.approx(v) for k, v in EXPECTED.items()}


def test_worked_example_through_worker_processes(metrics: ModuleType, tmp_path: Path) -> None:
    result = evaluate(metrics, tmp_path, outfile_prefix=str(tmp_path / 'out'), nproc=2)
    assert result == {f'coco_panoptic/{k}': pytest.approx(v) for k, v in EXPECTED.items()}


def test_mmdet_loads_panoptic_pngs(metrics: ModuleType, tmp_path: Path) -> None:
    ids = draw(TRUTH)
    write_truth(tmp_path, ids)
    transforms = importlib.import_module('mmdet.datasets.transforms')
    results = {
        'seg_map_path': str(tmp_path / 'a.png'),
        'segments_info': [{'id': 3, 'category': 2, 'is_thing': False}],
        'ori_shape': (6, 10),
    }
    loader = transforms.LoadPanopticAnnotations(with_bbox=False, with_label=False)
    loaded = loader.transform(results)['gt_seg_map']
    np.testing.assert_array_equal(loaded, np.where(ids == 3, 2, 255))


# Panoptic quality


def test_qualities_of_each_class() -> None:
    stat = PQStat()
    stat[1].tp, stat[1].iou, stat[1].fp, stat[1].fn = 3, 2.4, 1, 2
    stat[2].fn = 4
    categories = {i: {'isthing': 1} for i in (1, 2, 3)}  # 3 does not occur
    means, per_class = stat.pq_average(categories, isthing=None)
    assert per_class[1] == pytest.approx({'pq': 2.4 / 4.5, 'sq': 0.8, 'rq': 3 / 4.5})
    assert per_class[2] == per_class[3] == {'pq': 0.0, 'sq': 0.0, 'rq': 0.0}
    assert means == pytest.approx({'pq': 1.2 / 4.5, 'sq': 0.4, 'rq': 1.5 / 4.5, 'n': 2})


def test_counts_add_up() -> None:
    total, part = PQStat(), PQStat()
    total[1].tp, part[1].tp, part[1].iou, part[2].fp = 1, 2, 1.5, 3
    total += part
    assert (total[1].tp, total[1].iou, total[2].fp, part[1].tp) == (3, 1.5, 3, 2)


def test_means_over_no_class_are_not_a_number() -> None:
    means, per_class = PQStat().pq_average({1: {'isthing': 1}}, isthing=False)
    assert math.isnan(means['pq'])
    assert (means['n'], per_class) == (0, {})


# Ids and colours


@pytest.mark.parametrize(('color', 'segment'), [([1, 2, 3], 197121), ([255, 255, 255], 256**3 - 1)])
def test_color_is_a_number_to_base_256(color: list[int], segment: int) -> None:
    assert (rgb2id(color), id2rgb(segment)) == (segment, color)


def test_images_of_ids_round_trip() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (5, 9, 3), dtype=np.uint8)
    assert rgb2id(rgb).dtype == np.int32
    np.testing.assert_array_equal(id2rgb(rgb2id(rgb)), rgb)


@pytest.mark.parametrize('segment', [-1, 256**3])
def test_id_without_a_color_is_refused(segment: int) -> None:
    with pytest.raises(ValueError, match=rf'\[0, 16777216\).*got {segment}'):
        id2rgb(np.array([[0, segment]]))


# install


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    panoptic_api.install()
    for name in ('panopticapi', 'panopticapi.evaluation', 'panopticapi.utils'):
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.usefixtures('no_package')
def test_real_package_is_left_untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'panopticapi').mkdir()
    (tmp_path / 'panopticapi/__init__.py').write_text('')
    (tmp_path / 'panopticapi/evaluation.py').write_text("PQStat = 'real'")
    monkeypatch.syspath_prepend(tmp_path)
    assert 'left untouched' in panoptic_api.install()
    assert importlib.import_module('panopticapi.evaluation').PQStat == 'real'


def test_install_twice_keeps_the_first_stand_in() -> None:
    panoptic_api.install()
    before = sys.modules['panopticapi']
    assert 'serves' in panoptic_api.install()
    assert sys.modules['panopticapi'] is before
    assert importlib.import_module('panopticapi.utils').rgb2id is rgb2id


@pytest.mark.usefixtures('no_package')
def test_mmdet_imported_before_gets_the_names(
    metrics: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = sys.modules['mmdet.evaluation.metrics.coco_panoptic_metric']
    monkeypatch.setattr(user, 'PQStat', None)
    monkeypatch.setattr(user, 'panopticapi', None)
    panoptic_api.install()
    assert user.PQStat is PQStat
    assert user.panopticapi is sys.modules['panopticapi']
