"""Predictions as files."""

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from PIL import Image
from pycocotools.coco import COCO

from vit_backbones.evaluation.predicting import Prediction
from vit_backbones.evaluation.prediction_files import ResultWriter, index_png, panoptic_segments
from vit_backbones.hosts.panoptic_api import rgb2id
from vit_backbones.images import Item
from vit_backbones.models.trained import Trained

PALETTE = np.arange(768, dtype=np.uint8).reshape(256, 3)
MODEL = SimpleNamespace(num_things_classes=1, panoptic_fusion_head=SimpleNamespace(num_classes=2))
TRAINED = Trained(MODEL, None, ['cat', 'sky'], PALETTE)


@pytest.fixture
def write(tmp_path):
    """Write predictions of images of 6 x 8 pixels; gives the folder."""

    def write(*samples, **options):
        writer = ResultWriter(tmp_path, TRAINED, **options)
        for i, sample in enumerate(samples):
            pixels = np.zeros((6, 8, 3), np.uint8)
            writer.add(Prediction(Item(None, f'a/{i}.jpg', f'a/{i}', pixels), sample))
        return tmp_path, writer.close()

    return write


@pytest.fixture
def objects():
    masks = torch.zeros(3, 6, 8, dtype=torch.bool)
    masks[0, 1:3, 2:5] = masks[1, 4:, 5:] = True
    return InstanceData(
        masks=masks,
        bboxes=torch.tensor([[2.0, 1.0, 5.0, 3.0], [5.0, 4.0, 8.0, 6.0], [0.0, 0.0, 1.0, 1.0]]),
        labels=torch.tensor([0, 1, 0]),
        scores=torch.tensor([0.5, 0.75, 0.1]),
    )


def test_index_png__numbers_and_colours():
    labels = np.array([[0, 1], [254, 255]])
    picture = Image.open(io.BytesIO(index_png(labels, PALETTE)))
    assert np.array_equal(np.asarray(picture), labels)
    assert np.array_equal(np.asarray(picture.convert('RGB')), PALETTE[labels])


def test_index_png__more_classes_than_a_byte_holds():
    labels = np.array([[0, 300]])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(index_png(labels, PALETTE)))), labels)


def test_semantic_maps_become_masks(write):
    labels = torch.randint(0, 2, (1, 6, 8), generator=torch.Generator().manual_seed(0))
    folder, written = write(BaseDataElement(pred_sem_seg=PixelData(data=labels)))
    assert written == ['masks', 'pictures']
    mask = np.asarray(Image.open(folder / 'masks/a/0.png'))
    assert np.array_equal(mask, labels[0].numpy())


def test_objects_are_cocos(write, objects):
    empty = BaseDataElement(pred_instances=objects[:0])
    folder, written = write(empty, BaseDataElement(pred_instances=objects), pictures=False)
    assert written == ['predictions.json']
    coco = COCO(folder / 'predictions.json')
    assert [each['file_name'] for each in coco.loadImgs([1, 2])] == ['a/0.jpg', 'a/1.jpg']
    assert coco.loadCats([2]) == [dict(id=2, name='sky')]
    first, second = coco.loadAnns(coco.getAnnIds())
    assert (first['image_id'], first['category_id'], first['score']) == (2, 2, 0.75)
    assert (first['bbox'], first['area']) == ([5, 4, 3, 2], 6)
    assert np.array_equal(coco.annToMask(second), objects.masks[0].numpy())


def test_boxes_alone(write, objects):
    del objects.masks
    folder, _ = write(BaseDataElement(pred_instances=objects), score_thr=0.7)
    [only] = json.loads((folder / 'predictions.json').read_text())['annotations']
    assert (only['area'], only.get('segmentation')) == (6, None)


def test_panoptic_maps_are_cocos(write):
    ids = torch.full((1, 6, 8), 2)  # nothing
    ids[:, :2], ids[:, 2, :3], ids[:, 3, 4:] = 1, 1000, 2000
    folder, written = write(BaseDataElement(pred_panoptic_seg=PixelData(sem_seg=ids)))
    assert written == ['panoptic', 'panoptic.json', 'pictures']
    content = json.loads((folder / 'panoptic.json').read_text())
    assert [each['isthing'] for each in content['categories']] == [1, 0]
    [annotation] = content['annotations']
    numbers = rgb2id(np.asarray(Image.open(folder / 'panoptic' / annotation['file_name'])))
    boxes = {each['id']: each['bbox'] for each in annotation['segments_info']}
    assert boxes == {1: [0, 0, 8, 2], 2: [0, 2, 3, 1], 3: [4, 3, 4, 1]}
    for each in annotation['segments_info']:
        assert (numbers == each['id']).sum() == each['area']
    assert (numbers == 0).sum() == 48 - 16 - 7


def test_segments_of_one_class_stay_apart():
    numbered, segments = panoptic_segments(np.array([[1000, 2000, 1]]), void=1)
    assert numbered.tolist() == [[1, 2, 0]]
    assert [each['category_id'] for each in segments] == [1, 1]
