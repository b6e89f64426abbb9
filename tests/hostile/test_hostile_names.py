"""Images of any name: what is made of them lies in the output folder, and none replaces another."""

import io
import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from conftest import load_tool
from PIL import Image
from slow import few
from trained_models import write_detector, write_segmenter

from vit_backbones.objects import survey_of
from vit_backbones.pictures.matrix import draw_confusion
from vit_backbones.pictures.overlay import with_legend

RANDOM = ['--model', 'test_vit', '--random-weights', '0']
# Below `images`; the first two leave the data, by `..` and as an absolute path
NAMES = [
    '../../up.png',
    'ROOT/absolute.png',
    'back\\slash.png',
    '..\\..\\windows.png',
    'new\nline.png',
    'quo"te\'.png',
    '-dash.png',
    '--out.png',
    'x' * 250 + '.png',
    unicodedata.normalize('NFC', 'é.png'),
    unicodedata.normalize('NFD', 'é.png'),
    '日本.png',
    'first/same.png',
    'second/same.png',
    'same.png',
    'same.jpg',
    'a/b.png',
    'a_b.png',
    '$HOME.png',
    '%s{0}.png',
    '*.png',
    'sp ace .png',
    'escape\x1b[31m.png',
]
NEVER_THERE = ['nul\0.png', 'y' * 300 + '.png', '', '..', 'missing.png', '/dev/zero']
CLASSES = ('cat\n$x_{$', 'dog', 'cow')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """A root with models, and images listed in `data/good.json` and `data/bad.json` deep in it."""
    root = tmp_path_factory.mktemp('names')
    home = root / 'a/b'
    (home / 'data/images').mkdir(parents=True)
    rng, names = np.random.default_rng(0), [each.replace('ROOT', str(root)) for each in NAMES]
    for name in names:
        path = home / 'data/images' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path, format='PNG')
    write_segmenter(home, 'val_dataloader = None\ntest_cfg = dict()\n')
    write_detector(home)
    for file, listed in (('good', names), ('bad', [*names, *NEVER_THERE])):
        images = [dict(id=i, file_name=n, width=96, height=64) for i, n in enumerate(listed)]
        (home / f'data/{file}.json').write_text(json.dumps(dict(images=images)))
    labels = home / 'data/labels'
    for name in names[2:]:
        path = labels / Path(name).with_suffix('.png')
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.resize(np.uint8([0, 1]), (64, 96))).save(path)
    return home


# A tool with its arguments, and how many files it writes for each image
TOOLS = {
    'masks': ('predict', ['seg.py', 'seg.pth', '{}', '--out', 'out'], 2),
    'objects': ('predict', ['det.py', 'det.pth', '{}', '--out', 'out', '--score-thr', '0'], 1),
    'pictures': ('visualize', ['{}', *RANDOM, '--size', '64', '--out', 'out'], 1),
    'npz': ('extract_features', ['{}', *RANDOM, '--out', 'out/f.npz'], 0),
    'safetensors': ('extract_features', ['{}', *RANDOM, '--out', 'out/f.safetensors'], 0),
    'parquet': ('extract_features', ['{}', *RANDOM, '--out', 'out/f.parquet'], 0),
}


@pytest.mark.parametrize('tool', few(TOOLS, 'masks', 'pictures', 'npz'))
def test_outputs_stay_in_their_folder(tool, data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(data)
    before, out = set(data.parents[1].rglob('*')), tmp_path / 'out'
    out.mkdir()
    name, arguments, files = TOOLS[tool]
    given = [each.format('data/bad.json') for each in arguments]
    given = [str(tmp_path / each) if each.startswith('out') else each for each in given]
    assert load_tool(name).main(given) == 0
    printed = capsys.readouterr().out.splitlines()[-1]
    assert f'{len(NAMES)} ' in printed
    assert f'{len(NEVER_THERE)} unreadable' in printed
    assert set(data.parents[1].rglob('*')) == before
    assert all(path.is_relative_to(out) for path in tmp_path.rglob('*') if path != out)
    made = [path for path in out.rglob('*.png') if path.name != 'contact_sheet.png']
    assert len(made) == files * len(NAMES)
    [listed] = out.rglob('*unreadable.txt')
    reasons = listed.read_text(errors='replace').splitlines()
    assert len(reasons) == len(NEVER_THERE)
    assert any(line.endswith('/dev/zero: it is a device, no file') for line in reasons)


def test_test_draws_each_image_once(data, tmp_path, monkeypatch):
    """Those of a folder, which `tools/test.py` names by their path in it."""
    monkeypatch.chdir(data)
    before = set(data.parents[1].rglob('*'))
    folders = ['--work-dir', str(tmp_path / 'w'), '--show-dir', str(tmp_path / 's')]
    options = ['test_dataloader.dataset.data_root=data', "test_evaluator=dict(type='IoUMetric')"]
    code = load_tool('test').main(['seg.py', 'seg.pth', *folders, '--cfg-options', *options])
    assert code == 0
    assert set(data.parents[1].rglob('*')) == before
    inside = [n for n in NAMES[2:] if n.endswith('.png') and n[0] != '.']
    drawn = list((tmp_path / 's').iterdir())
    assert len(drawn) == len(inside)  # a/b.png and a_b.png would both be a_b.png
    assert all(len(os.fsencode(path.name)) <= 255 for path in drawn)


def test_images_outside_their_folder_are_counted(data):
    images = json.loads((data / 'data/good.json').read_text())['images']
    box = dict(id=1, image_id=0, category_id=1, bbox=[1, 1, 9, 9], area=81, iscrowd=0)
    content = dict(images=images, annotations=[box], categories=[dict(id=1, name='a')])
    options = dict(classes=None, with_masks=False, measured=False, takes_rle=True)
    [problem] = survey_of(content, **options)[0]
    assert not problem.stops
    assert problem.text == (
        "2 of 23 images lie outside the folder of the images (id 0, 1): '../../up.png' is the "
        'first; they are read from there: see that you want that'
    )


def test_class_names_of_any_kind_are_drawn():
    picture, palette = np.zeros((64, 96, 3), np.uint8), np.zeros((256, 3), np.uint8)
    assert with_legend(picture, [0, 1], CLASSES, palette).shape[0] > 64
    draw_confusion(np.eye(4, dtype=int), CLASSES, 'a title').savefig(io.BytesIO())
