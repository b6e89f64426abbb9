"""Images as a config's pipeline loads them: the same features as in its training."""

from pathlib import Path

import bands  # noqa: F401  (registers a loader)
import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import MODELS
from PIL import Image

from vit_backbones import loaders
from vit_backbones.bits import bits_of
from vit_backbones.config.loading import use_scope
from vit_backbones.features.extractor import Extractor
from vit_backbones.features.plan import make_plan
from vit_backbones.images import UnreadableImageError, as_picture, resized
from vit_backbones.loaders import RGB_READER, deep_line, reader_of
from vit_backbones.models.chosen import Choice, load_backbone

CONFIG = """
default_scope = 'mmseg'
custom_imports = dict(imports=['vit_backbones'])
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', mean={mean}, std={std}, bgr_to_rgb={rgb}),
    backbone=dict(type='ViTFeatBackbone', model_name='test_vit', pretrained=False,
                  in_channels={channels}),
    decode_head=dict(type='FCNHead', in_channels=64, in_index=0, channels=8, num_convs=1,
                     num_classes=2),
    test_cfg=dict(mode='whole'),
)
val_dataloader = dict(dataset=dict(type='BaseSegDataset', pipeline=[
    dict({load}), dict(type='Resize', scale=(64, 32)), dict(type='LoadAnnotations'),
    dict(type='PackSegInputs')]))
"""
PLAIN = "type='LoadImageFromFile'"
WHOLE = PLAIN + ", color_type='unchanged', to_float32=True"
FILES = {  # name: shape, top value, loader, channels, whether channels turn
    'rgb.png': ((40, 56, 3), 255, PLAIN, 3, True),
    'rgb.jpg': ((40, 56, 3), 255, PLAIN, 3, True),
    'bgr.png': ((40, 56, 3), 255, PLAIN, 3, False),
    'grey.png': ((40, 56), 255, PLAIN, 3, True),
    'one.png': ((40, 56), 255, PLAIN + ", color_type='grayscale'", 1, False),
    'deep.tif': ((40, 56, 4), 4095, WHOLE, 4, False),
    'deep_rgb.tif': ((40, 56, 3), 4095, WHOLE, 3, True),
    'deep_grey.png': ((40, 56), 65535, WHOLE, 1, False),
    'cut.tif': ((40, 56, 4), 9000, PLAIN, 3, True),
    'cut.png': ((40, 56, 3), 65535, PLAIN, 3, True),
    'turned.jpg': ((40, 56, 3), 255, PLAIN, 3, True),
    'kept.jpg': ((40, 56, 3), 255, PLAIN + ", color_type='unchanged'", 3, True),
    'pillow.png': ((40, 56, 3), 255, PLAIN + ", imdecode_backend='pillow'", 3, True),
    'bands.npy': ((40, 56, 6), 1, "type='LoadBandsForTest'", 6, False),
}


def write(path, shape, top):
    values = np.random.default_rng(0).uniform(0, top, shape)
    if path.suffix == '.npy':
        np.save(path, values.astype(np.float32))
    else:
        cv2.imwrite(str(path), values.astype(np.uint8 if top <= 255 else np.uint16))
    if path.stem in ('turned', 'kept'):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.open(path).save(path, exif=exif)
    return path


def write_config(folder, load=PLAIN, channels=3, rgb=True, **more):
    file, values = Path(folder, 'config.py'), dict(load=load, channels=channels, rgb=rgb)
    values |= dict(mean=[10.0 + 3 * c for c in range(channels)], std=[7.0] * channels)
    file.write_text(CONFIG.format(**values | more))
    return str(file)


def trained_features(config, path, seed):
    """What the model's own data preprocessor and backbone make of what the pipeline loads."""
    cfg = Config.fromfile(config)
    use_scope(cfg)
    model = MODELS.build(cfg.model).eval()
    model.backbone.load_state_dict(load_backbone(seed).backbone.state_dict())
    left_out = ('Resize', 'LoadAnnotations')
    steps = [each for each in cfg.val_dataloader.dataset.pipeline if each.type not in left_out]
    sample = Compose(steps)(dict(img_path=str(path), reduce_zero_label=False))
    with torch.no_grad():
        inputs = model.data_preprocessor(pseudo_collate([sample]))['inputs']
        inputs = torch.stack(inputs) if isinstance(inputs, list) else inputs
        return model.backbone(inputs)[0][0].numpy()


@pytest.mark.parametrize('name', FILES)
def test_features_are_those_of_the_training(name, tmp_path):
    shape, top, load, channels, rgb = FILES[name]
    path, config = write(tmp_path / name, shape, top), write_config(tmp_path, load, channels, rgb)
    chosen = Choice(config=config, random_weights=1)
    loaded = load_backbone(chosen)
    extractor = Extractor(loaded, joined=True)
    plan = make_plan([path], extractor.resize, 1, size_of=loaded.reader.size)
    assert plan.unreadable == {}
    image = extractor.read(plan.items[0])
    turned = name == 'turned.jpg'
    assert image.shape == ((56, 40) if turned else (40, 56)) + (channels,)
    [[found]] = extractor.run([image])
    expected = trained_features(config, path, chosen)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


NORMALIZE = "dict(type='Normalize', mean=[9.0, 20.0, 30.0], std=[7.0, 8.0, 9.0]{}), dict("


@pytest.mark.parametrize(
    ('preprocessor', 'more'),
    [
        ('None', NORMALIZE.format('')),
        ('None', NORMALIZE.format(', to_rgb=False')),
        ("dict(type='SegDataPreProcessor')", NORMALIZE.format('')),
        ("dict(type='SegDataPreProcessor', bgr_to_rgb=True)", ''),
    ],
)
def test_a_pipeline_that_normalises_is_followed(preprocessor, more, tmp_path):
    config = Path(write_config(tmp_path))
    start = "dict(type='SegDataPreProcessor', mean=[10.0, 13.0, 16.0], std=[7.0, 7.0, 7.0], "
    text = config.read_text().replace(f'{start}bgr_to_rgb=True)', preprocessor)
    assert start not in text
    config.write_text(
        text.replace("dict(type='Resize'", f"{more}type='Resize'" if more else "dict(type='Resize'")
    )
    path, chosen = (
        write(tmp_path / 'a.png', (40, 56, 3), 255),
        Choice(config=str(config), random_weights=1),
    )
    extractor = Extractor(load_backbone(chosen))
    [[found]] = extractor.run([extractor.loaded.read(path)])
    expected = trained_features(str(config), path, chosen)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_only_other_loaders_change_the_fingerprint(tmp_path):
    def fingerprint(load):
        config = write_config(tmp_path, load)
        return load_backbone(Choice(config=config, random_weights=1)).fingerprint()

    assert fingerprint(PLAIN) == fingerprint(PLAIN + ', backend_args=None')
    assert fingerprint(PLAIN) != fingerprint(WHOLE)


def test_a_config_without_a_pipeline_reads_rgb(tmp_path):
    cfg = Config.fromfile(write_config(tmp_path))
    cfg.val_dataloader = None
    assert reader_of(cfg) == RGB_READER
    cfg.train_dataloader = dict(dataset=dict(pipeline=[dict(type='PackSegInputs')]))
    assert reader_of(cfg) == RGB_READER


def test_the_bits_of_a_file_are_read_once(tmp_path, monkeypatch):
    path, asked = write(tmp_path / 'a.png', (6, 7, 3), 255), []
    monkeypatch.setattr(loaders, 'bits_of', lambda path: asked.append(path) or 8)
    reader = reader_of(Config.fromfile(write_config(tmp_path)))
    assert reader.size(path) == reader.read(path).shape[:2] == (6, 7)
    assert asked == [path]


def test_half_a_file_is_refused_and_other_errors_are_one_line(tmp_path):
    path = write(tmp_path / 'a.jpg', (300, 400, 3), 255)
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(UnreadableImageError, match='truncated'):
        reader_of(Config.fromfile(write_config(tmp_path))).read(path)
    whole = reader_of(Config.fromfile(write_config(tmp_path, WHOLE)))
    with pytest.raises(UnreadableImageError, match=r'gone\.tif: .*No such file') as error:
        whole.read(tmp_path / 'gone.tif')
    assert '\n' not in str(error.value)


def test_other_channels_are_a_reason(tmp_path):
    loaded = load_backbone(Choice(config=write_config(tmp_path, WHOLE, 4), random_weights=1))
    path = write(tmp_path / 'a.png', (20, 30, 3), 255)
    with pytest.raises(UnreadableImageError, match=r'it has 3 channels, and the model takes 4$'):
        loaded.read(path)
    plain = load_backbone(Choice(config=write_config(tmp_path, WHOLE), random_weights=1))
    path = write(tmp_path / 'b.tif', (20, 30, 4), 4095)
    with pytest.raises(UnreadableImageError, match=r'it has 4 channels, and the model takes 3$'):
        plain.read(path)


def test_means_for_other_channels_are_refused(tmp_path):
    config = write_config(tmp_path, WHOLE, 4, mean=[1.0] * 3)
    wrong = r'mean has 3 values, and the backbone takes 4 channels: give one for each'
    with pytest.raises(ValueError, match=wrong):
        load_backbone(Choice(config=config, random_weights=1))


@pytest.mark.parametrize(
    ('name', 'top', 'bits'),
    [
        ('a.png', 65535, 16), ('a.tif', 4095, 16), ('a.ppm', 65535, 16), ('a.png', 255, 8),
        ('a.tif', 255, 8), ('a.jpg', 255, 8), ('a.ppm', 255, 8),
    ],
)  # fmt: skip
def test_bits_of_a_channel(name, top, bits, tmp_path):
    assert bits_of(write(tmp_path / name, (6, 7, 3), top)) == bits
    assert bits_of(write(tmp_path / f'grey{Path(name).suffix}', (6, 7), top)) in (8, bits)


def test_bits_of_big_tiff_and_of_no_image(tmp_path):
    image = Image.fromarray(np.zeros((3, 4), np.uint16))
    image.save(tmp_path / 'a.tif', big_tiff=True)
    assert bits_of(tmp_path / 'a.tif') == 16
    (tmp_path / 'b.tif').write_bytes(b'II*\0')
    (tmp_path / 'b.png').write_bytes(b'\x89PNG')
    assert [bits_of(tmp_path / name) for name in ('b.tif', 'b.png', 'none.tif')] == [8, 8, 8]


def test_lost_bits_are_one_line_with_the_range_read(tmp_path):
    deep, flat = write(tmp_path / 'a.png', (6, 7, 3), 4095), write(tmp_path / 'b.png', (6, 7), 255)
    high = cv2.imread(str(deep), cv2.IMREAD_UNCHANGED) >> 8
    assert deep_line([flat, deep, deep], RGB_READER) == (
        f'2 of 3 images have 16 bits a channel and are read as 8-bit: {deep} as {high.min()} to '
        f"{high.max()} of 255; a config whose LoadImageFromFile has color_type='unchanged', "
        f'to_float32=True keeps all bits'
    )
    assert deep_line([flat], RGB_READER) == ''
    for load, told in ((WHOLE, ''), (PLAIN + ", color_type='grayscale'", '1 of 1 images')):
        line = deep_line([deep], reader_of(Config.fromfile(write_config(tmp_path, load))))
        assert line.startswith(told)
        assert bool(line) == bool(told)


@pytest.mark.parametrize('kind', [np.uint8, np.uint16, np.float32])
def test_any_image_is_resized_band_by_band(kind):
    image = (np.random.default_rng(0).random((20, 30, 4)) * 255).astype(kind)
    small = resized(image, (10, 15))
    assert small.dtype == kind
    for band in range(4):
        one = Image.fromarray(image[..., band].astype(np.float32))
        expected = np.asarray(one.resize((15, 10), Image.Resampling.BICUBIC))
        close = 0.5 if kind != np.float32 else 0
        np.testing.assert_allclose(small[..., band], expected.clip(0, None), atol=close + 1e-4)


def test_any_image_is_a_picture():
    rgb = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    assert as_picture(rgb) is rgb
    assert np.array_equal(as_picture(rgb.astype(np.float32)), rgb)
    assert np.array_equal(as_picture(rgb[..., :1]), rgb[..., [0, 0, 0]])
    four = np.dstack([rgb, rgb[..., 0]])
    assert np.array_equal(as_picture(four), rgb[..., ::-1])
    stretched = as_picture(np.array([[[1000.0, 2000.0, 3000.0]]]))
    assert stretched.tolist() == [[[0, 128, 255]]]
    assert as_picture(np.full((1, 1, 2), 500.0)).tolist() == [[[0, 0, 0]]]
