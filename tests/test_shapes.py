"""The built-in dataset: what is drawn, what is written, and that the stock datasets read it."""

import json
import subprocess
import sys
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, METRICS
from mmengine.structures import PixelData
from pycocotools import mask as mask_utils

from vit_backbones import shapes
from vit_backbones.hosts import mmcv_loader, panoptic_api
from vit_backbones.shapes import CLASSES, DIFFICULTY, Difficulty, Drawing, draw_image, write_shapes

CONFIGS = Path(__file__).parents[1] / 'configs' / '_base_' / 'datasets'
KINDS = ('instance', 'semantic', 'panoptic')
SIZE = {'num_train': 4, 'num_val': 2, 'seed': 3}
LAGS = ((0, 4), (4, 0), (4, 4), (4, -4), (0, 8), (2, 2))


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp('data') / 'shapes', **SIZE)


@pytest.fixture(scope='module')
def drawings() -> list[Drawing]:
    return [draw_image(seed) for seed in range(300)]


@pytest.fixture(scope='module', autouse=True)
def stand_ins() -> None:
    mmcv_loader.install()
    panoptic_api.install()


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


def _config(kind: str, root: Path) -> ConfigDict:
    """The dataset config with its data moved to ``root``."""
    text = Config.fromfile(CONFIGS / f'shapes_{kind}.py').pretty_text
    return Config.fromstring(text.replace('data/shapes', str(root)), '.py')


def _annotations(root: Path, kind: str) -> list[dict[str, Any]]:
    return json.loads((root / 'annotations' / f'{kind}_train.json').read_text())['annotations']


def _mean_colour(drawing: Drawing, index: int) -> list[float]:
    return drawing.image[drawing.masks[index]].mean(axis=0).tolist()


def _texture(drawing: Drawing, index: int) -> list[float]:
    """How much grey values differ at a few offsets within the object, relative to their spread."""
    grey = np.where(drawing.masks[index], drawing.image.mean(axis=2), np.nan)
    spread = np.nanstd(grey)
    pairs = [np.abs(grey - np.roll(grey, lag, axis=(0, 1))) for lag in LAGS]
    return [spread, *(np.nan_to_num(np.nanmean(pair) / spread) for pair in pairs)]


def _shape(drawing: Drawing, index: int) -> list[float]:
    """Area relative to the diameter and to the convex hull, and the log of the first moments."""
    mask = drawing.masks[index].astype(np.uint8)
    hull = cv2.convexHull(cv2.findNonZero(mask))
    moments = cv2.HuMoments(cv2.moments(mask, binaryImage=True))[:3, 0]
    filled = mask.sum() / cv2.contourArea(hull)
    area = mask.sum() / drawing.diameters[index] ** 2
    return [area, filled, *np.log(np.abs(moments) + 1e-7)]


def _accuracy(
    drawings: list[Drawing], feature: Callable[[Drawing, int], list[float]], least_visible: float
) -> float:
    """Of a nearest-centroid classifier fitted to one half of the objects, on the other half."""
    chosen = [(d, i) for d in drawings for i in np.flatnonzero(d.visible >= least_visible)]
    features = np.array([feature(drawing, index) for drawing, index in chosen])
    features /= features.std(axis=0)
    labels = np.array([drawing.labels[index] for drawing, index in chosen])
    half = len(labels) // 2
    centroids = [features[:half][labels[:half] == k].mean(axis=0) for k in range(len(CLASSES))]
    distances = np.linalg.norm(features[half:, None] - np.array(centroids), axis=2)
    return float(np.mean(distances.argmin(axis=1) == labels[half:]))


def test_same_seed_draws_the_same() -> None:
    first, second = draw_image((1, 2, 3)), draw_image((1, 2, 3))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_other_seed_draws_another_image() -> None:
    assert not np.array_equal(draw_image(1).image, draw_image(2).image)


def test_image_is_a_rectangle_of_bytes() -> None:
    drawing = draw_image(0)
    assert (drawing.image.shape, drawing.image.dtype) == ((128, 192, 3), np.uint8)
    assert drawing.masks.shape == (len(drawing.labels), 128, 192)


def test_number_of_objects_is_two_to_six(drawings: list[Drawing]) -> None:
    assert {len(drawing.labels) for drawing in drawings} == {2, 3, 4, 5, 6}


@pytest.mark.parametrize(
    ('low', 'high', 'share'),
    [(*r, s) for r, s in zip(DIFFICULTY.diameters, DIFFICULTY.diameter_shares, strict=True)],
)
def test_diameters_have_the_documented_shares(
    drawings: list[Drawing], low: int, high: int, share: float
) -> None:
    diameters = np.concatenate([drawing.diameters for drawing in drawings])
    assert np.mean((diameters >= low) & (diameters < high)) == pytest.approx(share, abs=0.05)


def test_diameter_is_the_longer_side_of_the_upright_outline() -> None:
    upright = Difficulty(num_objects=(1, 1), max_rotation=0, max_cut=0)
    for seed in range(40):
        drawing = draw_image(seed, difficulty=upright)
        box = cv2.boundingRect(drawing.masks[0].astype(np.uint8))
        assert drawing.diameters[0] * 0.88 - 2 <= max(box[2:]) <= drawing.diameters[0] + 2


def test_every_object_is_visible_enough(drawings: list[Drawing]) -> None:
    assert min(drawing.visible.min() for drawing in drawings) >= DIFFICULTY.min_visible


def test_some_objects_are_occluded(drawings: list[Drawing]) -> None:
    visible = np.concatenate([drawing.visible for drawing in drawings])
    assert 0.1 < np.mean(visible < 0.8) < 0.4


@pytest.mark.parametrize('max_cut', [DIFFICULTY.max_cut, 0.0])
def test_border_cuts_little(max_cut: float) -> None:
    alone = Difficulty(num_objects=(1, 1), max_cut=max_cut)
    visible = [draw_image(seed, difficulty=alone).visible[0] for seed in range(100)]
    assert min(visible) >= 1 - max_cut
    assert (min(visible) < 1) == (max_cut > 0)


def test_no_pixel_belongs_to_two_objects(drawings: list[Drawing]) -> None:
    assert max(drawing.masks.sum(axis=0).max() for drawing in drawings) == 1


def test_classes_are_equally_likely(drawings: list[Drawing]) -> None:
    counts = np.bincount(np.concatenate([drawing.labels for drawing in drawings]))
    assert counts / counts.sum() == pytest.approx(np.full(len(CLASSES), 1 / 8), abs=0.04)


def test_two_colours_of_an_object_contrast() -> None:
    for seed in range(40):
        drawing = draw_image(seed, difficulty=Difficulty(max_noise=0))
        for mask in drawing.masks:
            colours = np.unique(drawing.image[mask], axis=0).astype(float)
            assert len(colours) <= 2
            assert np.linalg.norm(colours[0] - colours[-1]) > 88 or len(colours) == 1


@pytest.mark.parametrize(('texture', 'axis'), [('horizontal', 1), ('vertical', 0)])
def test_stripes_stay_upright_when_the_outline_turns(texture: str, axis: int) -> None:
    label = shapes.TEXTURES.index(texture)
    for seed in range(40):
        drawing = draw_image(seed, difficulty=Difficulty(max_noise=0))
        for mask in drawing.masks[drawing.labels == label]:
            grey = drawing.image.sum(axis=2, dtype=float)
            low = np.where(mask, grey, np.inf).min(axis=axis)
            high = np.where(mask, grey, -np.inf).max(axis=axis)
            assert np.all((low == high) | ~mask.any(axis=axis))


def test_colour_does_not_tell_the_class(drawings: list[Drawing]) -> None:
    # About 600 objects are classified: the standard deviation of chance is 0.0135.
    assert _accuracy(drawings, _mean_colour, 0) < 1 / 8 + 4 * 0.0135


@pytest.mark.parametrize('channel', [0, 1, 2])
def test_mean_colours_of_the_classes_are_alike(drawings: list[Drawing], channel: int) -> None:
    labels = np.concatenate([drawing.labels for drawing in drawings])
    values = np.array([_mean_colour(d, i)[channel] for d in drawings for i in range(len(d.labels))])
    groups = [values[labels == k] for k in range(len(CLASSES))]
    between = sum(len(g) * (g.mean() - values.mean()) ** 2 for g in groups) / (len(groups) - 1)
    within = sum(len(g) * g.var() for g in groups) / (len(values) - len(groups))
    assert between / within < 4.3  # one in 10,000 by chance: F(7, 1200)


@pytest.mark.parametrize(('feature', 'least'), [(_texture, 0.7), (_shape, 0.7)])
def test_texture_and_shape_each_tell_the_class(
    drawings: list[Drawing], feature: Callable[[Drawing, int], list[float]], least: float
) -> None:
    assert _accuracy(drawings, feature, 0.95) > least


def test_image_file_holds_the_drawn_pixels(root: Path) -> None:
    drawing = draw_image((SIZE['seed'], 1, 1))
    assert np.array_equal(cv2.imread(str(root / 'val' / '000001.png')), drawing.image)


def test_images_do_not_depend_on_how_many_are_drawn(root: Path, tmp_path: Path) -> None:
    fewer = write_shapes(tmp_path / 'fewer', num_train=1, num_val=1, seed=SIZE['seed'])
    for path in ('train/000000.png', 'val/000000.png'):
        assert (fewer / path).read_bytes() == (root / path).read_bytes()


def test_processes_at_once_leave_one_and_the_same_set(root: Path, tmp_path: Path) -> None:
    code = f'import shapes; shapes.write_shapes({str(tmp_path / "shapes")!r}, **{SIZE})'
    folder = Path(shapes.__file__).parent
    runs = [subprocess.Popen([sys.executable, '-c', code], cwd=folder) for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ['shapes']
    assert _files(tmp_path / 'shapes') == _files(root)


def test_instances_semantic_and_panoptic_agree(root: Path) -> None:
    semantic = np.zeros((SIZE['num_train'], 128, 192), dtype=np.uint8)
    for instance in _annotations(root, 'instances'):
        mask = mask_utils.decode(instance['segmentation']).astype(bool)
        semantic[instance['image_id'] - 1][mask] = instance['category_id']
    for annotation, expected in zip(_annotations(root, 'panoptic'), semantic, strict=True):
        name = annotation['file_name']
        ids = cv2.imread(str(root / 'panoptic' / 'train' / name)).astype(int) @ [65536, 256, 1]
        categories = np.zeros(256, dtype=int)
        for segment in annotation['segments_info']:
            categories[segment['id']] = segment['category_id'] % 9  # background: 9 there, 0 here
        written = cv2.imread(str(root / 'semantic' / 'train' / name), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(written, expected)
        assert np.array_equal(categories[ids], expected)


def test_instances_are_the_drawn_objects(root: Path) -> None:
    drawing = draw_image((SIZE['seed'], 0, 2))
    instances = [one for one in _annotations(root, 'instances') if one['image_id'] == 3]
    masks = [mask_utils.decode(one['segmentation']) for one in instances]
    assert np.array_equal(np.stack(masks), drawing.masks)
    assert [one['category_id'] - 1 for one in instances] == drawing.labels.tolist()


@pytest.mark.parametrize('kind', ['instances', 'panoptic'])
def test_area_and_box_are_those_of_the_visible_pixels(root: Path, kind: str) -> None:
    drawing = draw_image((SIZE['seed'], 0, 0))
    if kind == 'instances':
        entries = [one for one in _annotations(root, kind) if one['image_id'] == 1]
    else:
        entries = _annotations(root, kind)[0]['segments_info'][:-1]
    for entry, mask in zip(entries, drawing.masks, strict=True):
        assert entry['area'] == mask.sum()
        assert entry['bbox'] == list(cv2.boundingRect(mask.astype(np.uint8)))


@pytest.mark.parametrize('kind', ['instances', 'panoptic'])
def test_annotation_ids_are_unique(root: Path, kind: str) -> None:
    entries = _annotations(root, kind)
    groups = [entries] if kind == 'instances' else [one['segments_info'] for one in entries]
    assert all(len({one['id'] for one in group}) == len(group) for group in groups)


def test_same_parameters_draw_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, '_write_all', _fail)
    assert write_shapes(root, **SIZE) == root


def test_other_parameters_raise(root: Path) -> None:
    with pytest.raises(ValueError, match=r'holds shapes with num_train=4, asked for num_train=5'):
        write_shapes(root, **{**SIZE, 'num_train': 5})


def test_other_difficulty_raises(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, 'DIFFICULTY', Difficulty(max_noise=9.0))
    with pytest.raises(ValueError, match=r'with max_noise=8.0, asked for max_noise=9.0'):
        write_shapes(root, **SIZE)


@pytest.mark.parametrize('name', ['notes.txt', 'meta.json'])
def test_folder_of_somebody_else_is_refused_and_kept(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('[1]')
    with pytest.raises(ValueError, match='not the built-in shapes: delete it or choose another'):
        write_shapes(tmp_path, **SIZE)
    assert _files(tmp_path) == {name: b'[1]'}


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'shapes').write_text('')
    with pytest.raises(ValueError, match='is not a folder'):
        write_shapes(tmp_path / 'shapes', **SIZE)


def test_empty_folder_is_filled(tmp_path: Path) -> None:
    assert (write_shapes(tmp_path, num_train=1, num_val=1) / 'meta.json').is_file()


@pytest.mark.parametrize(
    ('name', 'value'), [('num_train', 0), ('num_val', -1), ('seed', -1), ('num_train', 2.5)]
)
def test_number_out_of_range_raises(tmp_path: Path, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f'{name}={value}: must be an integer of at least'):
        write_shapes(tmp_path / 'shapes', **{**SIZE, name: value})


def test_failure_while_drawing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = [draw_image(0), draw_image(1)]
    monkeypatch.setattr(shapes, 'draw_image', lambda seed: drawn.pop())
    with pytest.raises(IndexError):
        write_shapes(tmp_path / 'shapes', **SIZE)
    assert list(tmp_path.iterdir()) == []


def test_image_that_cannot_be_written_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, 'imwrite', lambda *_: False)
    with pytest.raises(OSError, match='could not be written'):
        write_shapes(tmp_path / 'shapes', **SIZE)
    assert list(tmp_path.iterdir()) == []


def test_other_set_that_appears_meanwhile_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all, target = shapes._write_all, tmp_path / 'shapes'

    def race(folder: Path, meta: dict[str, Any]) -> None:
        write_all(folder, meta)
        target.mkdir()
        write_all(target, {**meta, 'seed': 4})

    monkeypatch.setattr(shapes, '_write_all', race)
    with pytest.raises(ValueError, match='holds shapes with seed=4, asked for seed=3'):
        write_shapes(target, **SIZE)
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize('kind', KINDS)
def test_config_asks_for_the_defaults(kind: str) -> None:
    parameters = signature(write_shapes).parameters.values()
    config = Config.fromfile(CONFIGS / f'shapes_{kind}.py')
    assert config.builtin_data == {one.name: one.default for one in parameters}


@pytest.mark.parametrize('kind', KINDS)
def test_config_names_the_classes_and_colours(kind: str) -> None:
    background, colour = [('background', (40, 40, 40))], {'semantic': 0, 'panoptic': 8}
    expected = list(zip(CLASSES, shapes.PALETTE, strict=True))
    if kind in colour:
        expected[colour[kind] : colour[kind]] = background
    metainfo = Config.fromfile(CONFIGS / f'shapes_{kind}.py').metainfo
    assert list(zip(metainfo.classes, metainfo.palette, strict=True)) == expected


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('split', ['train', 'val'])
def test_stock_dataset_reads_every_image(root: Path, kind: str, split: str) -> None:
    dataset = DATASETS.build(_config(kind, root)[f'{split}_dataloader'].dataset)
    assert len(dataset) == SIZE[f'num_{split}']
    assert all(tuple(item['inputs'].shape) == (3, 128, 192) for item in dataset)


@pytest.mark.parametrize('kind', ['instance', 'panoptic'])
def test_stock_dataset_gives_the_drawn_instances(root: Path, kind: str) -> None:
    drawing = draw_image((SIZE['seed'], 1, 0))
    dataset = DATASETS.build(_config(kind, root).val_dataloader.dataset)
    truth = dataset[0]['data_samples'].gt_instances
    assert truth.labels.tolist() == drawing.labels.tolist()
    assert np.array_equal(truth.masks.to_ndarray(), drawing.masks)


@pytest.mark.parametrize('kind', ['semantic', 'panoptic'])
def test_stock_dataset_gives_the_drawn_map(root: Path, kind: str) -> None:
    drawing = draw_image((SIZE['seed'], 1, 0))
    labels, background = (drawing.labels + 1, 0) if kind == 'semantic' else (drawing.labels, 8)
    expected = np.full((128, 192), background)
    for mask, label in zip(drawing.masks, labels, strict=True):
        expected[mask] = label
    dataset = DATASETS.build(_config(kind, root).val_dataloader.dataset)
    truth = dataset[0]['data_samples'].gt_sem_seg
    found = truth.data[0] if kind == 'semantic' else truth.sem_seg[0]
    assert np.array_equal(found.numpy(), expected)


@pytest.mark.parametrize(
    ('kind', 'metric', 'best'),
    [
        ('instance', 'coco/segm_mAP', 1.0),
        ('semantic', 'mIoU', 100.0),
        ('panoptic', 'coco_panoptic/PQ', 100.0),
    ],
)
def test_evaluator_scores_the_truth_as_perfect(
    root: Path, kind: str, metric: str, best: float
) -> None:
    config = _config(kind, root)
    dataset = DATASETS.build(config.val_dataloader.dataset)
    evaluator = METRICS.build(config.val_evaluator)
    evaluator.dataset_meta = dataset.metainfo
    samples = [_as_prediction(item['data_samples'], kind) for item in dataset]
    evaluator.process({}, samples)
    assert evaluator.evaluate(len(dataset))[metric] == best


def _as_prediction(sample: Any, kind: str) -> dict[str, Any]:
    """The ground truth of a data sample in the form in which models predict it."""
    if kind == 'semantic':
        sample.pred_sem_seg = sample.gt_sem_seg
    if kind == 'instance':
        sample.pred_instances = sample.gt_instances.clone()
        sample.pred_instances.scores = sample.gt_instances.labels * 0.0 + 1.0
        masks = sample.gt_instances.masks.to_ndarray().astype(bool)
        sample.pred_instances.masks = torch.from_numpy(masks)
    if kind == 'panoptic':
        number = sample.gt_sem_seg.sem_seg.clone().long()
        masks = sample.gt_instances.masks.to_ndarray().astype(bool)
        for index, mask in enumerate(masks, start=1):
            number[0, mask] += 1000 * index  # as mmdet encodes the instances of a panoptic map
        sample.pred_panoptic_seg = PixelData(sem_seg=number)
    return sample.to_dict()


def _fail(*_: Any) -> NoReturn:
    pytest.fail('drew again')
