"""Images that are not 8-bit RGB: a segmenter of four bands of 16 bits, through every tool."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import load_tool
from PIL import Image
from trained_models import write_segmenter

FOUR = """
model['backbone']['in_channels'] = 4
model['data_preprocessor'].update(mean=[5000.0] * 4, std=[3000.0] * 4, bgr_to_rgb=False)
load = dict({load})
for loader in (train_dataloader, test_dataloader):
    loader['dataset'].update(img_suffix='{suffix}', data_root={root!r})
    loader['dataset']['pipeline'] = [load, *loader['dataset']['pipeline'][1:]]
val_dataloader, custom_imports = test_dataloader, dict(imports=['vit_backbones', 'test_loaders'])
val_evaluator = test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
val_cfg, test_cfg = dict(), dict()
"""
LOADERS = {
    '.tif': "type='LoadImageFromFile', color_type='unchanged', to_float32=True",
    '.npy': "type='LoadBandsForTest'",
}


@pytest.fixture(scope='module', params=LOADERS)
def trained(request, tmp_path_factory):
    """Folder, config, checkpoint and suffix of a model, and four images with labels."""
    folder, suffix = tmp_path_factory.mktemp('four'), request.param
    (folder / 'seg/images').mkdir(parents=True)
    (folder / 'seg/labels').mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        bands = rng.integers(0, 9000, (64, 96, 4)).astype(np.uint16)
        path = folder / f'seg/images/{i}{suffix}'
        if suffix == '.tif':
            cv2.imwrite(str(path), bands)
        else:
            np.save(path, bands.astype(np.float32))
        labels = Image.fromarray(rng.integers(0, 2, (64, 96)).astype(np.uint8))
        labels.save(folder / f'seg/labels/{i}.png')
    code = FOUR.format(load=LOADERS[suffix], suffix=suffix, root=str(folder / 'seg'))
    return folder, *write_segmenter(folder, code), suffix


@pytest.fixture
def run(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def call(tool, *arguments):
        code = load_tool(tool).main([str(each) for each in arguments])
        return code or 0, capsys.readouterr().out.splitlines()[-1]

    return call


def test_features_of_a_split(trained, run):
    _, config, checkpoint, _ = trained
    weights = ['--config', config, '--checkpoint', checkpoint, '--out-type', 'featmap']
    code, line = run('extract_features', *weights, '--split', 'val', '--out', 'f.npz')
    assert (code, line.split(',')[0]) == (0, '3 images')
    arrays = np.load('f.npz')
    assert len([name for name in arrays.files if arrays[name].shape == (64, 4, 6)]) == 6


def test_predictions_and_their_pictures(trained, run):
    folder, config, checkpoint, _ = trained
    images = sorted((folder / 'seg/images').iterdir())
    code, line = run('predict', config, checkpoint, *images, '--out', 'out')
    assert (code, line) == (0, '3 images: out/masks, out/pictures')
    assert Image.open('out/masks/0.png').size == (96, 64)
    assert np.asarray(Image.open('out/pictures/0.png')).std() > 20


@pytest.mark.parametrize('kind', ['--pca', '--attention', '--predictions'])
def test_pictures(kind, trained, run):
    folder, config, checkpoint, _ = trained
    images = sorted((folder / 'seg/images').iterdir())
    images = [] if kind == '--predictions' else [*images, '--layers', '1', '3']
    given = [*images, '--config', config, '--checkpoint', checkpoint]
    code, line = run('visualize', *given, kind, '--out', 'out')
    assert (code, line.split(':')[0]) == (0, '3 pictures')


def test_images_of_other_channels_are_one_line(trained, tmp_path, monkeypatch, capsys):
    _, config, checkpoint, suffix = trained
    monkeypatch.chdir(tmp_path)
    if suffix == '.tif':
        Image.new('RGB', (96, 64)).save('rgb.png')
    else:
        np.save('rgb.npy', np.zeros((64, 96, 3), np.float32))
    image, weights = next(tmp_path.glob('rgb.*')).name, ['--checkpoint', checkpoint]
    why = 'it has 3 channels, and the model takes 4'
    for tool, arguments in (
        ('predict', [config, checkpoint, image, '--out', 'out']),
        ('visualize', [image, '--config', config, *weights, '--out', 'out', '--layers', '3']),
        ('extract_features', [image, '--config', config, *weights, '--out', 'f.npz']),
    ):
        assert load_tool(tool).main(arguments) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith('error: none of 1 images c')
        assert why in error


def test_evaluation_draws_them(trained, run):
    _, config, checkpoint, _ = trained
    code, _ = run('test', config, checkpoint, '--work-dir', 'w', '--show-dir', 'shown')
    assert code == 0
    drawn = list(Path('shown').glob('*.png'))
    assert len(drawn) == 3
    assert np.asarray(Image.open(drawn[0]).convert('L'))[:64, :96].std() > 20
