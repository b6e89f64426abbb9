"""Bits and channels of images that a training would lose or miss."""

import cv2
import numpy as np
import pytest
import torch
from mmdet.models import DetDataPreprocessor
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope
from torch import nn

from vit_backbones import ViTFeatBackbone
from vit_backbones.checks.channels import channel_findings
from vit_backbones.checks.data import image_findings

PLAIN = dict(type='LoadImageFromFile')
WHOLE = PLAIN | dict(color_type='unchanged')
FIX = "set color_type='unchanged', to_float32=True"
PLACE = 'val_dataloader.dataset'


@pytest.fixture
def build(tmp_path):
    """A dataset of images, arrays by name, under a loader."""

    def write(images, load=PLAIN, pack=None):
        init_default_scope('mmseg')
        for name, pixels in images.items():
            cv2.imwrite(str(tmp_path / name), pixels)
        files = [dict(img_path=str(tmp_path / name)) for name in images]
        steps = [load, pack or dict(type='PackSegInputs', meta_keys=())]
        dataset = BaseDataset(pipeline=steps, lazy_init=True)
        dataset.data_list = dataset.load_data_list = files
        dataset.serialize_data, dataset._fully_initialized = False, True
        return dataset

    return write


def found(dataset):
    return [(each.level, each.text) for each in image_findings(dataset, 'val')]


def ramp(top, *shape, kind=np.uint16):
    return np.linspace(0, top, np.prod(shape)).reshape(shape).astype(kind)


def test_deep_files_under_an_8_bit_loader(build):
    images = {f'{i}.png': ramp(4095, 9, 8, 3) for i in range(2)}
    images |= {'c.tif': ramp(3000, 9, 8), 'd.png': ramp(255, 9, 8, 3, kind=np.uint8)}
    assert found(build(images)) == [
        (
            'warning',
            f'{PLACE}: 3 of 4 images are 16-bit, values 0 to 4095, and LoadImageFromFile reads '
            f'them as 8-bit: 0 to 15: {FIX}',
        )
    ]


@pytest.mark.parametrize(
    ('pixels', 'load', 'line'),
    [
        (ramp(4095, 9, 8, 3), WHOLE | dict(to_float32=True), None),
        (ramp(4095, 9, 8, 4), WHOLE, None),
        (ramp(255, 9, 8, 3, kind=np.uint8), PLAIN, None),
        (ramp(255, 9, 8), WHOLE, None),  # dark, but whole
        (ramp(255, 9, 8) * np.uint16(257), PLAIN, None),  # 8 bits, spread
        (ramp(200, 9, 8), PLAIN, 'values 0 to 200, and LoadImageFromFile reads them as 8-bit: 0'),
        (ramp(65535, 9, 8), PLAIN | dict(color_type='grayscale'), 'them as 8-bit: 0 to 255'),
        (ramp(9000, 9, 8, 4), PLAIN | dict(to_float32=True), 'values 0 to 9000, and'),
    ],
)
def test_only_lost_bits_are_reported(pixels, load, line, build):
    lines = [text for _, text in found(build({'a.tif': pixels}, load))]
    assert len(lines) == (line is not None)
    assert line is None or line in lines[0]


def test_images_that_differ_in_channels(build):
    images = {f'{i}.png': ramp(255, 9, 8, 3, kind=np.uint8) for i in range(3)}
    images['grey.png'] = ramp(255, 9, 8, kind=np.uint8)
    assert found(build(images)) == []
    [(level, text)] = found(build(images, WHOLE))
    assert level == 'warning'
    assert text.startswith(f'{PLACE}: images differ in channels (1 of 1, 3 of 3; 1: /')
    assert text.endswith("grey.png), which most models refuse: save them alike, or load them by "
                         "color_type='color'")  # fmt: skip


@pytest.mark.parametrize(
    ('given', 'load', 'taken', 'message'),
    [
        (3, PLAIN, 3, None),
        (4, PLAIN, 3, None),
        (4, WHOLE, 4, None),
        (4, PLAIN, 4, "3 channels ({}, by LoadImageFromFile), and the backbone takes 4: load all "
         "bands by color_type='unchanged', or set model.backbone.in_channels=3"),
        (4, WHOLE, 3, "4 channels ({}, by LoadImageFromFile), and the backbone takes 3: load them "
         "by color_type='color', or set model.backbone.in_channels=4"),
        (1, WHOLE, 3, "1 channel ({}, by LoadImageFromFile), and the backbone takes 3: load them "
         "by color_type='color', or set model.backbone.in_channels=1"),
        (4, WHOLE, 6, '4 channels ({}, by LoadImageFromFile), and the backbone takes 6: set '
         'model.backbone.in_channels=4, or load other channels'),
    ],
)  # fmt: skip
def test_channels_of_the_loader_and_of_the_model(given, load, taken, message, build, tmp_path):
    model = nn.Module()
    model.backbone = ViTFeatBackbone('test_vit', pretrained=False, in_channels=taken)
    shape = (9, 8) if given == 1 else (9, 8, given)
    dataset = build({'a.png': ramp(255, *shape, kind=np.uint8)}, load)
    texts = [each.text for each in channel_findings(model, dataset, 'train')]
    start = 'train_dataloader.dataset gives images of '
    assert texts == ([] if message is None else [start + message.format(tmp_path / 'a.png')])


def test_channels_that_a_later_transform_makes_fit_and_nothing_is_drawn(build, monkeypatch):
    model = nn.Module()
    model.backbone = ViTFeatBackbone('test_vit', pretrained=False, in_channels=6)
    dataset = build({'a.png': ramp(255, 9, 8, 3, kind=np.uint8)})
    pack = dataset.pipeline.transforms[-1]

    def doubled(results):
        np.random.rand(), torch.rand(1)
        return pack.transform(results | dict(img=np.dstack([results['img']] * 2)))

    dataset.pipeline.transforms[-1] = doubled
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    assert list(channel_findings(model, dataset, 'train')) == []
    assert torch.equal(state[0], torch.get_rng_state())
    assert np.array_equal(state[1], np.random.get_state()[1])


@pytest.mark.parametrize(('turns', 'number'), [(True, 0), (False, 1)])
def test_mmdet_keeps_three_channels_where_it_turns_their_order(turns, number, build):
    model = nn.Module()
    model.backbone = ViTFeatBackbone('test_vit', pretrained=False)
    model.data_preprocessor = DetDataPreprocessor(bgr_to_rgb=turns)
    dataset = build({'a.png': ramp(255, 9, 8, 4, kind=np.uint8)}, WHOLE)
    inputs = [torch.zeros(4, 9, 8, dtype=torch.uint8)]
    given = model.data_preprocessor(dict(inputs=inputs))['inputs'].shape[1]
    assert given == (3 if turns else 4)
    assert len(list(channel_findings(model, dataset, 'train'))) == number
