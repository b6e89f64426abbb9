"""Ten small data sets from users' reports: each mistake in them is reported before a training.

`make.py` draws them; it lies beside the real data, as `DATA` names it.
"""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import load_tool
from PIL import Image
from slow import few

DATA = Path(os.environ.get('VIT_BACKBONES_DATA', Path(__file__).parents[2] / 'shared'))
ROOT = Path(__file__).parents[1]
MAKE, WEIGHTS = DATA / 'cases/make.py', DATA / 'weights/vit_tiny_patch16_224.safetensors'
pytestmark = pytest.mark.skipif(
    not (MAKE.exists() and WEIGHTS.exists()),
    reason=f'{MAKE} or {WEIGHTS} is absent; VIT_BACKBONES_DATA names the folder of data and cases',
)


@pytest.fixture
def case(tmp_path, monkeypatch):
    """Draw a case by its name, and go into its folder."""
    spec = importlib.util.spec_from_file_location('make_cases', MAKE)
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    monkeypatch.setenv('VIT_TINY', str(WEIGHTS))
    monkeypatch.chdir(tmp_path)
    return lambda name: getattr(make, name)(tmp_path)


@pytest.fixture
def run(capsys):
    """A tool on arguments: its exit code, and all that it prints."""

    def run(tool, *arguments):
        capsys.readouterr()
        code = load_tool(tool).main([str(each) for each in arguments]) or 0
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


REFUSED = {  # what both the check and the training say
    'doubled_category': (
        "has several categories of the name 'cell' (ids 0, 1), and each gets a label of its own, "
        "so that 'cell' (32 objects) gets label 1, which no class has",
    ),
    'order_of_classes': ("so that 'cell' (18 objects) counts as 'debris'",),
    'turned_photos': (
        'error: train_dataloader.dataset: 8 of 8 images have another size',
        'before their EXIF orientation turns them',
    ),
    'short_polygons': (
        'whose first polygon has under three points (id 1): pycocotools fails',
        'whose box is narrower than 1 pixel (id 2): mmdet leaves them out',
    ),
    'zero_label_left': (
        "10 label maps hold only class 'ground' and 89% ignored pixels",
        'reduce_zero_label=True takes 1 off each label and ignores label 0',
    ),
    'labels_before_resize': (
        'move LoadAnnotations behind Resize in val_dataloader.dataset.pipeline',
    ),
}


@pytest.mark.parametrize('name', few(REFUSED, 'doubled_category', 'zero_label_left'))
def test_the_check_and_the_training_refuse(name, case, run):
    case(name)
    flags = () if name == 'order_of_classes' else ('--data',)  # the small file is read anyway
    for tool, options, expected in (('check_config', flags, 1), ('train', (), 2)):
        code, text = run(tool, 'config.py', *options)
        missing = [reason for reason in REFUSED[name] if reason not in text]
        assert (code, missing) == (expected, []), text
        assert "Argument 'bb'" not in text  # pycocotools' own words


@pytest.mark.slow
def test_own_data_merges_a_doubled_category(case, run):
    case('doubled_category')
    recipe = ROOT / 'configs/vitdet/mask-rcnn_vit-ti_nuclei.py'
    code, text = run('check_config', recipe, '--dataset', 'data')
    assert code == 0
    assert '8 images and 32 objects to train on, 4 to validate on; 1 class: cell' in text


def test_text_ids(case, run):
    case('text_ids')
    recipe = ROOT / 'configs/vitdet/mask-rcnn_vit-ti_nuclei.py'
    code, text = run('check_config', recipe, '--dataset', 'data', '--data')
    assert code == 2
    assert (
        "32 of 32 annotations whose image_id is text ('1'), where the id of images is a n" in text
    )


@pytest.mark.slow
def test_one_output(case, run):
    case('one_output')
    code, text = run('train', 'config.py', '--work-dir', 'w', '--cfg-options', 'randomness.seed=0')
    assert code == 0, text
    shares = []
    for out, *flags in (('plain',), ('flipped', '--flip')):
        images = 'config.py', 'w/epoch_2.pth', 'data/images/val'
        assert run('predict', *images, '--out', out, '--no-pictures', *flags)[0] == 0
        masks = [np.asarray(Image.open(path)) for path in sorted(Path(out).glob('masks/*.png'))]
        shares.append(np.mean(masks))
    assert shares[1] < 0.9
    assert shares[1] == pytest.approx(shares[0], abs=0.1)


@pytest.mark.slow
def test_windows_and_padding(case, run):
    case('windows_and_padding')
    code, text = run('check_config', 'config.py', '--data')
    assert (code, 'no error, no warning' in text) == (0, True), text
    assert run('train', 'config.py', '--work-dir', 'w')[0] == 0
    assert run('test', 'config.py', 'w/epoch_2.pth')[0] == 0
    images = 'config.py', 'w/epoch_2.pth', 'data/images/val'
    code, text = run('predict', *images, '--out', 'out', '--no-pictures')
    assert (code, text.splitlines()[-1]) == (0, '4 images: out/masks')


def test_four_bands(case, run):
    case('four_bands')
    weights = '--config', 'config.py', '--random-weights', '0'
    code, text = run('extract_features', *weights, '--split', 'val', '--out', 'f.npz')
    assert (code, '4 images' in text) == (0, True), text
    Image.new('RGB', (64, 64)).save('a.png')
    code, text = run('extract_features', *weights, 'a.png', '--out', 'g.npz')
    assert (code, '3 channels' in text) == (2, True), text
