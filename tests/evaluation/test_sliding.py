"""Detectors on tiles of large images: the objects of a mosaic are those of its parts."""

import json
import tracemalloc

import numpy as np
import pytest
import torch
from conftest import load_tool
from eomt_models import detector as eomt
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import BaseDataElement, InstanceData
from PIL import Image
from pycocotools import mask as rle
from torch import nn
from trained_models import write_detector, write_images

from vit_backbones.cutouts import Cutout, Place
from vit_backbones.evaluation.loaded_model import LoadedModel
from vit_backbones.evaluation.prediction_files import coco_annotations
from vit_backbones.evaluation.sliding import Part, Slide, merged, tile_places
from vit_backbones.models.trained import Trained, load_trained
from vit_backbones.pictures.overlay import draw_overlay
from vit_backbones.samples import marks_of

PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='PackDetInputs', meta_keys=('img_path', 'ori_shape', 'img_shape')),
]
COLOURS = 40, 80, 120, 160  # of the red channel, a class each; green tells objects apart


class Seer(nn.Module):
    """Finds each rectangle of `draw` as far as it lies in its input, boxes only without `masks`."""

    def __init__(self, masks=True):
        super().__init__()
        self.masks, self.seen = masks, []

    def test_step(self, data):
        return [self.found(image.numpy()) for image in data['inputs']]

    def found(self, image):
        red, green = image[2].astype(int), image[1].astype(int)
        self.seen.append(image.shape[1:])
        keys = np.unique(red * 256 + green)
        masks = [red * 256 + green == key for key in keys if key]
        boxes = [rle.toBbox(rle.encode(np.asfortranarray(mask, np.uint8))) for mask in masks]
        boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in boxes]).reshape(-1, 4)
        found = InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float32),
            labels=torch.tensor([COLOURS.index(key // 256) for key in keys if key]).long(),
            scores=torch.tensor([min(0.99, 0.5 + mask.sum() / 4000) for mask in masks]),
        )
        if self.masks:
            found.masks = torch.from_numpy(np.array(masks).reshape(-1, *red.shape))
        sample = DetDataSample()
        sample.pred_instances = found
        return sample


def stub(**options):
    config = Config(
        dict(
            default_scope='mmdet',
            test_dataloader=dict(dataset=dict(type='CocoDataset', pipeline=PIPELINE)),
        )
    )
    return LoadedModel(Trained(Seer(**options), config, list('abcd'), np.zeros((256, 3), 'u1')))


def draw(size, boxes):
    """An image with rectangles (left, top, right, bottom), of classes in turn."""
    image = np.zeros((*size, 3), np.uint8)
    for i, (left, top, right, bottom) in enumerate(boxes):
        image[top:bottom, left:right] = COLOURS[i % 4], 255 - i, 0
    return image


def listed(found, shift=(0, 0)):
    """Label, box and area of each object, in the order of their places."""
    boxes = found.boxes + np.float32([*shift, *shift])
    areas = [int(np.asarray(mask).sum()) for mask in found.masks]
    return sorted(zip(found.labels.tolist(), boxes.tolist(), areas, strict=True))


def test_tiles_cover_an_image_and_end_with_it():
    places = tile_places((100, 130), Slide(64, 48))
    assert [each[:2] for each in places] == [(y, x) for y in (0, 36) for x in (0, 48, 66)]
    assert {each[2:] for each in places} == {(64, 64)}
    assert tile_places((30, 64), Slide(64, 48)) == [(0, 0, 30, 64)]
    covered = np.zeros((501, 333), int)
    for place in tile_places((501, 333), Slide(50, 50)):
        place.of(covered)[:] += 1
    assert covered.min() == 1


@pytest.mark.parametrize(('crop', 'stride', 'batch_size'), [(64, 32, 1), (48, 24, 4), (90, 50, 2)])
def test_a_mosaic_has_the_objects_of_its_parts(crop, stride, batch_size):
    rng, parts = np.random.default_rng(crop), []
    for number in range(6):  # neighbours that touch, of one class, and one as large as a tile
        lefts, tops = rng.integers(0, 12, 3), rng.integers(0, 30, 3)
        corners = zip(np.array([0, 32, 64]) + lefts, tops, (8, 20, 50), strict=True)
        boxes = [(x, y, x + 20, y + height) for x, y, height in corners]
        boxes += [(2, 84, 90, 90), (40, 91, 50, 96), (50, 91, 60, 96)]
        image = draw((96, 96), boxes)
        image[..., 1] -= (image[..., 1] > 0) * np.uint8(10 * number)  # objects of their own
        parts.append(image)
    mosaic = np.vstack([np.hstack(parts[:3]), np.hstack(parts[3:])])
    model, expected = stub(), []
    for i, part in enumerate(parts):
        expected += listed(model.predict(part), (96 * (i % 3), 96 * (i // 3)))
    found = model.predict(mosaic, slide=(crop, stride), batch_size=batch_size)
    assert listed(found) == sorted(expected)
    assert {tuple(size) for size in model.trained.model.seen[6:]} == {(crop, crop)}
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    whole = [np.asarray(mask) for mask in found.masks]
    for box, mask in zip(found.boxes.astype(int), whole, strict=True):
        colour = mosaic[mask]
        assert (colour == colour[0]).all()
        assert mask[box[1] : box[3], box[0] : box[2]].all()


def test_boxes_alone_are_merged_and_those_that_a_tile_tells_apart_stay():
    boxes = [(50, 10, 90, 40), (60, 20, 70, 30), (72, 12, 80, 38), (0, 0, 5, 5)]
    image = draw((64, 160), boxes)
    image[..., 0] = np.where(image[..., 1] > 0, COLOURS[0], 0)  # all of one class
    model = stub(masks=False)
    found = model.predict(image, slide=(64, 16))
    assert found.masks is None
    assert sorted(found.boxes.tolist()) == sorted(map(list, boxes))
    assert found.names.tolist() == ['a'] * 4


def test_parts_of_two_classes_or_of_little_overlap_stay_apart():
    places = [Place(0, 0, 40, 40), Place(0, 20, 40, 40)]

    def part(tile, box, label=0, score=0.5):
        return Part(tile, label, score, np.float32(box), None, False)

    one = part(0, (20, 0, 30, 10))
    for other, count in [
        (part(1, (25, 0, 35, 10)), 1),
        (part(1, (26, 0, 36, 10)), 2),
        (part(1, (20, 0, 30, 10), label=1), 2),
        (part(0, (20, 0, 30, 10)), 2),
        (part(1, (20, 0, 23, 3), score=0.9), 1),
    ]:
        found = merged([one, other], places, 0.5)
        assert len(found) == count
        assert found[0].score == max(one.score, other.score)
    assert len(merged([one, part(1, (26, 0, 36, 10))], places, 0.4)) == 1


def test_cutouts_do_as_whole_masks_do():
    rng = np.random.default_rng(0)
    ground, palette = rng.integers(0, 256, (2, 40, 40, 3), dtype=np.uint8)
    palette = palette.reshape(-1, 3)

    def instances(masks):
        boxes, labels = torch.zeros(2, 4), torch.arange(2)
        return InstanceData(bboxes=boxes, labels=labels, scores=torch.ones(2), masks=masks)

    for _ in range(50):
        masks, cutouts = [], []
        for _ in range(2):
            place = Place(*rng.choice([0, 9, 28], 2).tolist(), 12, 12)
            mask = rng.random((12, 12)) > rng.choice([0.5, 0.95, 1])
            whole = np.zeros((40, 40), bool)
            place.of(whole)[:] = mask
            masks.append(whole)
            cutouts.append(Cutout.of(mask, place, (40, 40)))
        assert np.array_equal(np.asarray(cutouts[0]), masks[0])
        assert np.array_equal(np.asarray(cutouts[0].with_rim(3)), masks[0])
        notes = [
            coco_annotations(instances(kept), 1, 0)
            for kept in (cutouts, torch.tensor(np.array(masks)))
        ]
        assert notes[0] == notes[1]
        pictures = [
            draw_overlay(
                ground, marks_of(BaseDataElement(pred_instances=instances(kept)))[1], 'ab', palette
            )
            for kept in (cutouts, torch.tensor(np.array(masks)))
        ]
        assert np.array_equal(*pictures)
        assert cutouts[0] & cutouts[1] == (masks[0] & masks[1]).sum()
        assert np.array_equal(np.asarray(cutouts[0] | cutouts[1]), masks[0] | masks[1])


def test_memory_is_that_of_the_objects_not_of_the_image():
    boxes = [(x, y, x + 20, y + 20) for x in range(10, 1900, 97) for y in range(10, 1900, 190)]
    image, model = draw((2000, 2000), boxes), stub()
    tracemalloc.start()
    found = model.predict(image, slide=(256, 192))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.masks) == len(boxes) == 200
    assert sum(mask.pixels.nbytes for mask in found.masks) == 200 * 20 * 20
    assert peak < 60e6  # 800 MB as (N, H, W)


@pytest.fixture(scope='module')
def trained_files(tmp_path_factory):
    return write_detector(tmp_path_factory.mktemp('tiled'))


def test_the_tool_writes_a_trained_detectors_objects_of_a_mosaic(
    trained_files, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    paths = write_images(tmp_path / 'parts', *[(64, 64)] * 4)
    parts = [np.asarray(Image.open(path)) for path in paths]
    mosaic = np.vstack([np.hstack(parts[:2]), np.hstack(parts[2:])])
    Image.fromarray(mosaic).save('mosaic.png')
    main = load_tool('predict').main
    arguments = [*trained_files, 'mosaic.png', '--out', 'out', '--score-thr', '0.05']
    assert main([*arguments, '--slide', '64', '64']) == 0
    lines = capsys.readouterr().out.splitlines()
    written = json.loads((tmp_path / 'out/predictions.json').read_text())['annotations']
    model, expected = LoadedModel(load_trained(*trained_files, device='cpu')), []
    for i, found in enumerate(model.predict(list(parts), score_thr=0.05)):
        corner = [64 * (i % 2), 64 * (i // 2)]
        boxes = found.boxes[:, :2] + np.float32(corner)
        for j in range(len(boxes)):
            area = float(found.masks[j].sum())
            expected.append((found.scores[j].item(), found.labels[j] + 1, *boxes[j], area))
    assert len(written) == len(expected) > 20
    number = f'1 image, {len(expected)} objects of score 0.05 or more'
    assert lines == [
        '1 image: 4 tiles of up to 64x64',
        f'{number}: out/pictures, out/predictions.json',
    ]
    shown = [(a['score'], a['category_id'], *a['bbox'][:2], a['area']) for a in written]
    assert sorted(shown) == sorted(expected)
    whole = rle.decode(written[0]['segmentation'] | dict(size=[128, 128]))
    assert whole.sum() == written[0]['area']


def test_what_does_not_suit_tiles_is_one_line(trained_files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / 'in', (64, 96), (30, 20))
    main, model = load_tool('predict').main, stub()
    for options, line in [
        (['--slide', '96', '64'], '--slide 96 64: no image is larger than a tile, the largest is '
         '96 pixels wide and 64 high; leave it out, or take a smaller CROP'),
        (['--slide', '8', '9'], '--slide 8 9: CROP and STRIDE are whole numbers from 1, STRIDE at '
         'most CROP'),
        (['--merge-thr', '0.4'], '--merge-thr 0.4: goes with --slide CROP STRIDE'),
        (['--slide', '64', '9', '--merge-thr', '1.5'],
         '--merge-thr 1.5: takes a share above 0, up to 1'),
    ]:  # fmt: skip
        assert main([*trained_files, 'in', '--out', 'out', *options]) == 2
        assert capsys.readouterr().err == f'error: {line}\n'
    assert not (tmp_path / 'out').exists()
    for slide in (64, (64,), (64, 3.5)):
        with pytest.raises(ValueError, match=r'takes two whole numbers, \(CROP, STRIDE\)'):
            model.predict(np.zeros((99, 99, 3), np.uint8), slide=slide)
    panoptic = LoadedModel(model.trained._replace(model=eomt().eval()))
    with pytest.raises(ValueError, match=r'slide=\(64, 9\): EoMT gives panoptic maps, which cann'):
        panoptic.predict(np.zeros((99, 99, 3), np.uint8), slide=(64, 9))
