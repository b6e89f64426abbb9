"""tools/predict.py."""

import json

import numpy as np
import pytest
from conftest import load_tool
from PIL import Image
from trained_models import write_detector, write_images, write_segmenter

from vit_backbones import files

main = load_tool('predict').main


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('predict')
    write_segmenter(folder)
    write_detector(folder)
    write_images(folder / 'images', (64, 96), (1, 1), (30, 400))
    (folder / 'images/d.png').write_bytes(b'no image')
    return folder


@pytest.fixture
def predict(folder, tmp_path, monkeypatch, capsys):
    """The exit code and the lines of a prediction into `out` of an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(name, *options):
        arguments = [str(folder / f'{name}.py'), str(folder / f'{name}.pth')]
        code = main([*arguments, str(folder / 'images'), '--out', 'out', *options])
        printed = capsys.readouterr()
        return code, printed.out.splitlines()[-1:], printed.err.splitlines()

    return run


def test_masks_have_the_images_own_sizes(predict):
    code, lines, errors = predict('seg', '--slide', '48', '32', '--flip', '--batch-size', '2')
    assert (code, errors) == (0, [])
    told = '3 images: out/masks, out/pictures · 1 unreadable, see out/unreadable.txt'
    assert lines == [told]
    sizes = [Image.open(f'out/masks/{name}.png').size for name in 'abc']
    assert sizes == [(96, 64), (1, 1), (400, 30)]
    assert Image.open('out/pictures/c.png').width >= 400


def test_objects_become_one_json(predict, tmp_path):
    code, lines, _ = predict('det', '--score-thr', '0')
    assert code == 0
    assert lines[0].startswith('3 images: out/pictures, out/predictions.json · 1 unreadable')
    content = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert [each['name'] for each in content['categories']] == ['cat', 'dog', 'cow']
    assert [(each['height'], each['width']) for each in content['images']] == [
        (64, 96),
        (1, 1),
        (30, 400),
    ]
    assert content['annotations']
    assert {'bbox', 'score', 'segmentation'} <= content['annotations'][0].keys()


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('seg', ['--slide', '8', '9'], 'error: --slide 8 9: STRIDE must be from 1 to CROP'),
        ('det', ['--flip'], 'error: --flip: mmdet merges only boxes'),
        ('seg', ['--cfg-options', 'model.decode_haed=1'], 'error: --cfg-options model.decode_haed'),
        ('none', [], "error: config '"),
        ('empty', [], 'error: {folder}/empty.py: the config has no model'),
    ],
)
def test_what_is_wrong_is_one_line(name, options, message, predict, folder, tmp_path):
    (folder / 'empty.py').touch()
    code, _, errors = predict(name, *options)
    assert code == 2
    assert len(errors) == 1
    assert errors[0].startswith(message.format(folder=folder))
    assert not (tmp_path / 'out').exists()


def test_a_full_disk_leaves_whole_files(predict, tmp_path, monkeypatch):
    replace, count = files.os.replace, []

    def full(draft, path):
        count.append(path)
        if len(count) > 2:
            raise OSError(28, 'No space left on device', str(path))
        replace(draft, path)

    monkeypatch.setattr(files.os, 'replace', full)
    code, _, errors = predict('seg')
    assert (code, errors) == (2, ['error: No space left on device: out/masks/b.png'])
    left = sorted(path for path in (tmp_path / 'out').rglob('*') if path.is_file())
    assert [str(path.relative_to(tmp_path)) for path in left] == [
        'out/masks/a.png',
        'out/pictures/a.png',
    ]
    assert all(np.asarray(Image.open(path)).size for path in left)


@pytest.mark.parametrize(('option', 'value'), [('--batch-size', '0'), ('--score-thr', '1.5')])
def test_numbers_out_of_range(option, value, predict):
    with pytest.raises(SystemExit, match='2'):
        predict('seg', option, value)
