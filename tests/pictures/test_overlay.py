import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from vit_backbones.config.datasets import class_names_and_colors
from vit_backbones.pictures.overlay import (
    draw_overlay,
    draw_sample,
    enlarged,
    shown_labels,
    with_legend,
)
from vit_backbones.samples import marks_of

IMAGE = np.full((400, 500, 3), 100, np.uint8)
CLASSES, PALETTE = class_names_and_colors(
    dict(classes=['cat', 'dog'], palette=[(200, 0, 0), (0, 0, 200)])
)


def drawn(sample, image=IMAGE):
    return draw_sample(image, *marks_of(sample), CLASSES, PALETTE)


def overlay(sample, kind='gt', image=IMAGE):
    return draw_overlay(image, marks_of(sample)[kind == 'pred'], CLASSES, PALETTE)


def legend(sample):
    return with_legend(IMAGE, shown_labels(marks_of(sample)), CLASSES, PALETTE)


def panels(picture):
    return picture[:, :500], picture[:, 504:1004], picture[:, 1008:]


def tinted(rgb):
    return ((100 + np.array(rgb)) / 2).astype(np.uint8)


def instances(**fields):
    return InstanceData(**fields)


def test_draw__semantic_maps_take_the_palette():
    labels = torch.full((1, 400, 500), 255)
    labels[:, :, 250:] = 1
    sample = BaseDataElement(pred_sem_seg=PixelData(data=labels))
    image, truth, prediction = panels(drawn(sample))
    np.testing.assert_array_equal(image, IMAGE)
    np.testing.assert_array_equal(truth, IMAGE)
    np.testing.assert_array_equal(prediction[:, :250], IMAGE[:, :250])
    assert (prediction[:, 250:] == tinted((0, 0, 200))).all()


def test_draw__instances_below_the_threshold_are_left_out():
    masks = torch.zeros(2, 400, 500, dtype=torch.bool)
    masks[0, 100:200, 100:200] = True
    masks[1, 300:400, 300:400] = True
    sample = BaseDataElement(
        pred_instances=instances(
            masks=masks, labels=torch.tensor([0, 1]), scores=torch.tensor([0.9, 0.1])
        )
    )
    _, _, prediction = panels(drawn(sample))
    np.testing.assert_array_equal(prediction[150, 150], tinted((200, 0, 0)))
    np.testing.assert_array_equal(prediction[250:], IMAGE[250:])


def test_draw__boxes_without_masks():
    boxes = torch.tensor([[50.0, 60.0, 150.0, 160.0]])
    truth = instances(bboxes=boxes, labels=torch.tensor([1]))
    picture = drawn(BaseDataElement(gt_instances=truth))
    _, truth, prediction = panels(picture)
    np.testing.assert_array_equal(truth[160, 100], (0, 0, 200))
    np.testing.assert_array_equal(truth[120, 140], (100, 100, 100))
    np.testing.assert_array_equal(prediction, IMAGE)


def test_draw__panoptic_ids_are_labels_modulo_the_offset():
    ids = torch.full((1, 400, 500), 2000)  # label 0, instance 2
    sample = BaseDataElement(pred_panoptic_seg=PixelData(sem_seg=ids))
    _, _, prediction = panels(drawn(sample))
    assert (prediction == tinted((200, 0, 0))).all()


@pytest.mark.parametrize(('size', 'expected'), [((40, 60), (320, 1448)), ((320, 400), (320, 1208))])
def test_draw__small_images_are_enlarged(size, expected):
    image = np.zeros((*size, 3), np.uint8)
    assert drawn(BaseDataElement(), image).shape == (*expected, 3)


def test_draw__truth_of_another_size_is_fitted():
    labels = torch.zeros(1, 200, 250, dtype=torch.int64)
    labels[:, 100:] = 1
    sample = BaseDataElement(gt_sem_seg=PixelData(data=labels))
    _, truth, _ = panels(drawn(sample))
    assert (truth[:200] == tinted((200, 0, 0))).all()
    assert (truth[200:] == tinted((0, 0, 200))).all()


def test_draw__names_are_written():
    truth = instances(bboxes=torch.tensor([[50.0, 60.0, 150.0, 160.0]]), labels=torch.tensor([1]))
    picture = drawn(BaseDataElement(gt_instances=truth))
    corner = cv2.cvtColor(panels(picture)[1][62:74, 52:90], cv2.COLOR_RGB2GRAY)
    assert (corner > 240).sum() > 20


def test_colors__are_made_up_where_the_dataset_has_none():
    names, colors = class_names_and_colors({})
    assert names == []
    assert colors.shape == (256, 3)
    assert len(np.unique(colors, axis=0)) > 200


def test_draw__large_images_are_not_enlarged_beyond_bounds():
    assert enlarged(np.zeros((2, 3000, 3), np.uint8)).shape == (2, 3000, 3)


def test_draw__one_pixel():
    sample = BaseDataElement(pred_sem_seg=PixelData(data=torch.ones(1, 1, 1, dtype=torch.int64)))
    picture = overlay(sample, 'pred', np.full((1, 1, 3), 100, np.uint8))
    assert picture.shape == (320, 320, 3)
    assert (picture == tinted((0, 0, 200))).all()


def test_draw__many_objects_get_no_names():
    boxes = torch.tensor([[50.0, 60.0, 150.0, 160.0]])
    one = instances(bboxes=boxes, labels=torch.tensor([1]))
    many = instances(bboxes=boxes.repeat(26, 1), labels=torch.ones(26, dtype=torch.int64))
    named, bare = (overlay(BaseDataElement(gt_instances=each)) for each in (one, many))
    assert (named == 255).all(-1).any()
    assert not (bare == 255).all(-1).any()


def test_legend__names_the_classes_that_are_there():
    labels = torch.full((1, 400, 500), 255)
    labels[:, 0, 0] = 1
    sample = BaseDataElement(pred_sem_seg=PixelData(data=labels))
    strip = legend(sample)[400:]
    assert strip.shape == (20, 500, 3)
    np.testing.assert_array_equal(strip[10, 10], (0, 0, 200))
    assert not (strip == PALETTE[0]).all(-1).any()


def test_legend__needs_no_space_without_classes():
    assert legend(BaseDataElement()) is IMAGE


def test_draw__instances_without_annotations():
    sample = BaseDataElement(gt_instances=instances())
    np.testing.assert_array_equal(overlay(sample), IMAGE)
    assert legend(sample) is IMAGE
