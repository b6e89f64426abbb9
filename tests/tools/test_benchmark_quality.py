import json
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import load_tool
from PIL import Image

from vit_backbones import ViTFeatBackbone
from vit_backbones.benchmark.labelled import Labelled
from vit_backbones.features import parts

COLOURS = np.array([[220, 30, 30], [30, 200, 40], [40, 60, 230]], np.uint8)
CAMVID = Path(os.environ.get('VIT_BACKBONES_DATA', '/nowhere'))
WEIGHTS = CAMVID / 'weights/vit_tiny_patch16_224.safetensors'

CONFIG = """
default_scope = 'mmseg'
dataset = dict(type='BaseSegDataset', data_root='blocks', img_suffix='.png',
               metainfo=dict(classes=('r', 'g', 'b'), palette=[[0, 0, 0]] * 3))
train_dataloader = dict(dataset=dict(type='RepeatDataset', times=2, dataset=dict(
    data_prefix=dict(img_path='images/train', seg_map_path='masks/train'), **dataset)))
val_dataloader = dict(dataset=dict(
    data_prefix=dict(img_path='images/val', seg_map_path='masks/val'), **dataset))
del dataset
model = dict(backbone=dict(type='ViTFeatBackbone', model_name='test_vit'))
"""

# What the recipe of a training has beside that
RECIPE = """
custom_imports = dict(imports=['vit_backbones'])
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
pack = [dict(type='PackSegInputs')]
train_dataloader.update(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler'))
train_dataloader['dataset']['dataset']['pipeline'] = load + pack
plain = dict(type='DefaultSampler', shuffle=False)
val_dataloader.update(batch_size=1, num_workers=0, sampler=plain)
val_dataloader['dataset'].update(pipeline=load + pack, test_mode=True)
del load, pack, plain
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
val_cfg = dict()
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', size=(80, 96)),
    backbone=dict(type='ViTFeatBackbone', model_name='vit_tiny_patch16_224', checkpoint='no.pth'),
    decode_head=dict(type='FCNHead', in_channels=192, channels=192, num_convs=0, num_classes=3,
                     concat_input=False, norm_cfg=None),
    test_cfg=dict(mode='whole'))
train_cfg = dict(by_epoch=True, max_epochs=4)
param_scheduler = [dict(type='LinearLR', start_factor=0.1, end=1),
                   dict(type='CosineAnnealingLR', begin=1)]
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
default_hooks = dict(curves=dict(type='CurvesHook'), pictures=None)
"""


def draw(folder):
    """Six images of coloured blocks to learn from, two to test on; the colour is the class."""
    generator = np.random.default_rng(0)
    for split, number in (('train', 6), ('val', 2)):
        for kind in ('images', 'masks'):
            (folder / kind / split).mkdir(parents=True)
        for i in range(number):
            labels = generator.integers(0, 3, (3, 4)).repeat(24, 0).repeat(24, 1)[:70, :90]
            noise = generator.integers(0, 20, (*labels.shape, 3), np.uint8)
            Image.fromarray(COLOURS[labels] + noise).save(folder / f'images/{split}/{i}.png')
            labels[:3] = 255
            Image.fromarray(labels.astype(np.uint8)).save(folder / f'masks/{split}/{i}.png')
    (folder / 'classes.txt').write_text('red\ngreen\nblue\n')


@pytest.fixture
def main(tmp_path, monkeypatch):
    """The tool's main, from a folder with drawn data."""
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / 'blocks')
    return load_tool('benchmark').main


@pytest.fixture
def quality(main):
    """`quality` on drawn data with random weights: the rows."""

    def run(*arguments, seed=0, data='blocks'):
        words = ['quality', data, '--models', 'test_vit', '--random-weights', str(seed)]
        assert main([*words, '--layers', '0', '-1', '--out', 'q.json', *arguments]) == 0
        return json.loads(Path('q.json').read_text())['rows']

    return run


@pytest.fixture
def calls(monkeypatch):
    """Sizes of images that go through a backbone."""
    sizes = []
    forward = ViTFeatBackbone.forward

    def counted(self, images):
        sizes.append(tuple(images.shape[-2:]))
        return forward(self, images)

    monkeypatch.setattr(ViTFeatBackbone, 'forward', counted)
    return sizes


def test_a_trivial_task_is_learned(quality, capsys):
    (row,) = quality()
    assert row['value'] > 0.8
    assert row['classes'].keys() == {'red', 'green', 'blue'}
    assert row['data'] == 'blocks val'
    assert row['dims'] == 128
    assert row['images_per_second'] > 0
    assert f'| {row["value"]:.3f} |' in capsys.readouterr().out


def test_a_second_run_reads_no_image_and_gives_the_same(quality, calls):
    (first,) = quality()
    assert len(calls) == 8
    (second,) = quality()
    assert len(calls) == 8
    assert second['value'] == first['value']
    assert second['images_per_second'] == first['images_per_second']


def test_a_stopped_run_goes_on_where_it_was(quality, calls, monkeypatch):
    monkeypatch.setattr(parts, '_SECONDS', 0)  # each image is a part of its own
    (first,) = quality()
    files = sorted(Path('work_dirs/features').rglob('*.safetensors'))
    assert len(files) == 8
    for file in files[:3]:
        file.unlink()
    calls.clear()
    assert quality()[0]['value'] == first['value']
    assert len(calls) == 3


def test_other_weights_and_sizes_get_features_of_their_own(quality, calls):
    (own,) = quality()
    quality(seed=1)
    (resized,) = quality('--size', '48', '64')
    assert (own['size'], resized['size']) == ('own', '48x64')
    assert calls == [(70, 90)] * 16 + [(48, 64)] * 8
    assert len(list(Path('work_dirs/features').iterdir())) == 3


def test_an_image_that_changed_is_run_again(quality, calls):
    quality()
    calls.clear()
    os.utime('blocks/images/val/1.png', ns=(1, 1))
    quality()
    assert len(calls) == 1


def test_labels_to_test_on_change_the_value_alone(quality):
    """Neither the penalty nor the scale is chosen on them."""
    (first,) = quality()
    for i in range(2):
        mask = Path(f'blocks/masks/val/{i}.png')
        Image.fromarray(np.full((70, 90), 2, np.uint8)).save(mask)
    (second,) = quality()
    assert second['penalty'] == first['penalty']
    assert second['value'] < first['value']


def test_a_model_of_several_strides_gets_one(main):
    words = ['quality', 'blocks', '--models', 'convnext_atto', '--random-weights', '0']
    assert main([*words, '--layers', '0', '1', '--out', 'q.json']) == 0
    assert json.loads(Path('q.json').read_text())['rows'][0]['value'] > 0.5


def test_a_config_stands_for_its_data_and_for_a_backbone(main):
    Path('c.py').write_text(CONFIG)
    words = ['quality', 'c.py', '--models', 'c.py', '--random-weights', '0', '--layers', '-1']
    assert main([*words, '--out', 'q.json']) == 0
    (row,) = json.loads(Path('q.json').read_text())['rows']
    assert list(row['classes']) == ['r', 'g', 'b']
    assert row['model'] == 'c'


@pytest.mark.slow
def test_fine_tuning_is_the_training_of_a_config(main, monkeypatch, capsys):
    Path('c.py').write_text(CONFIG + RECIPE)
    words = ['quality', 'c.py', '--models', 'test_vit', '--random-weights', '0', '--layers', '-1']
    words += ['--fine-tune', '1', '--out', 'q.json']
    assert main(words) == 0
    (row,) = json.loads(Path('q.json').read_text())['rows']
    assert f'| {row["value"]:.3f} | {row["fine_tuned"]:.3f} |' in capsys.readouterr().out
    (folder,) = Path('work_dirs/fine_tune').iterdir()
    Path('again.py').write_text((folder / f'{folder.name}.py').read_text())
    assert load_tool('train').main(['again.py', '--work-dir', 'again']) == 0
    (validation,) = json.loads(Path('again/record.json').read_text())['validations']
    assert row['fine_tuned'] == validation['metrics']['mIoU'] / 100

    def refuse(*args, **options):
        raise AssertionError('trained again')

    monkeypatch.setattr('vit_backbones.benchmark.fine_tune.train', refuse)
    assert main(words) == 0
    assert json.loads(Path('q.json').read_text())['rows'][0]['fine_tuned'] == row['fine_tuned']


@pytest.mark.parametrize('size', [(1, 1), (1, 7), (5, 1)])
def test_labels_keep_the_size_of_thin_images(tmp_path, size):
    pixels = np.arange(size[0] * size[1], dtype=np.uint8).reshape(size)
    Image.fromarray(pixels).save(tmp_path / 'm.png')
    info = dict(label_map=None, reduce_zero_label=False, seg_fields=[])
    item = Labelled(tmp_path / 'm.png', info | dict(seg_map_path=str(tmp_path / 'm.png')))
    assert np.array_equal(item.labels(), pixels)


def test_masks_of_another_size_than_the_image_are_one_line(main, capsys):
    Path('c.py').write_text(CONFIG)
    Image.fromarray(np.zeros((70, 91), np.uint8)).save('blocks/masks/train/3.png')
    assert main(['quality', 'c.py', '--models', 'test_vit', '--random-weights', '0']) == 2
    assert 'masks/train/3.png has (70, 91) pixels, its image (70, 90)' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('words', 'line'),
    [
        (['blocks', '--models', 'test_vit'], 'features of random weights help nobody'),
        (['blocks', '--models', 'test_vit=no.pth'], 'no.pth'),
        (
            ['blocks', '--models', 'test_vit', '--random-weights', '0', '--fine-tune', '1'],
            '--fine-tune trains by the recipe of a config, and blocks is a folder',
        ),
        (
            ['det.py', '--models', 'test_vit', '--random-weights', '0'],
            'needs a class for each pixel',
        ),
        (['blocks', '--models', 'test_vitt', '--random-weights', '0'], 'test_vitt'),
        (['nowhere', '--models', 'test_vit', '--random-weights', '0'], "'nowhere' does not exist"),
        (
            ['blocks', '--models', 'test_vit', '--random-weights', '0', '--cfg-options', 'a=1'],
            '--cfg-options change a config, and blocks is a folder',
        ),
        (
            ['empty', '--models', 'test_vit', '--random-weights', '0'],
            "'empty' is empty: add images/",
        ),
        (
            ['blocks', '--models', 'test_vit', '--random-weights', '0', '--layers', '99'],
            'out_indices',
        ),
        (
            ['blocks', '--models', 'test_vit', '--random-weights', '0', '--cache', 'blocks/a.txt'],
            'a.txt',
        ),
        (
            ['blocks', '--models', 'test_vit', '--random-weights', '0', '--out', 'empty'],
            'empty cannot be written: it is no file',
        ),
    ],
)
def test_what_is_wrong_is_one_line(main, capsys, words, line):
    Path('empty').mkdir()
    Path('blocks/a.txt').write_text('')
    Path('det.py').write_text("default_scope = 'mmdet'")
    assert main(['quality', *words]) == 2
    told = capsys.readouterr().err.strip()
    assert line in told
    assert len(told.splitlines()) == 1


def test_a_broken_image_is_one_line(main, capsys):
    whole = Path('blocks/images/val/0.png').read_bytes()
    Path('blocks/images/val/0.png').write_bytes(whole[: len(whole) // 2])
    assert main(['quality', 'blocks', '--models', 'test_vit', '--random-weights', '0']) == 2
    assert 'images/val/0.png' in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not WEIGHTS.exists(), reason='needs CamVid and weights: VIT_BACKBONES_DATA')
def test_camvid_with_vit_tiny(main, monkeypatch):
    monkeypatch.setenv('CAMVID_ROOT', str(CAMVID / 'data/camvid'))
    config = str(Path(__file__).parents[2] / 'configs/linear_probe/linear_vit-ti_camvid.py')
    words = ['--models', f'vit_tiny_patch16_224={WEIGHTS}', '--out', 'q.json']
    assert main(['quality', config, *words]) == 0
    (row,) = json.loads(Path('q.json').read_text())['rows']
    assert row['value'] >= 0.52
