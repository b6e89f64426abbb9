"""tools/predict.py."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import load_tool
from PIL import Image
from trained_models import write_detector, write_images, write_segmenter

from vit_backbones import files
from vit_backbones.evaluation import prediction_files

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
    told = (
        '3 images, 60 objects of score 0 or more: out/pictures, out/predictions.json · 1 unreadab'
    )
    assert lines[0].startswith(told)
    content = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert [each['name'] for each in content['categories']] == ['cat', 'dog', 'cow']
    assert [(each['height'], each['width']) for each in content['images']] == [
        (64, 96),
        (1, 1),
        (30, 400),
    ]
    assert content['annotations']
    assert {'bbox', 'score', 'segmentation'} <= content['annotations'][0].keys()


def below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*.png'))


@pytest.mark.parametrize(
    ('images', 'given', 'masks'),
    [
        (['a/1.png', 'b/1.png', 'b/c/2.png'], ['in'], ['a/1.png', 'b/1.png', 'b/c/2.png']),
        (['a/1.png', 'b/1.png'], ['in/a', 'in/b'], ['a/1.png', 'b/1.png']),
        (['a/1.png', 'a/2.png'], ['in'], ['1.png', '2.png']),
        (['a/1.png', 'a/1.jpg', 'a/2.jpg'], ['in/a'], ['1.jpg.png', '1.png.png', '2.png']),
        (['a/1.png', 'a/1.jpg', 'b/1.jpg'], ['in'], ['a/1.jpg.png', 'a/1.png.png', 'b/1.png']),
        (['x/a/1.png', 'y/a/1.png'], ['in/x/a/1.png', 'in/y/a/1.png'], ['x/a/1.png', 'y/a/1.png']),
    ],
)
def test_results_nest_as_the_images_below_their_shared_folder(
    images, given, masks, folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in images:
        path = Path('in', name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (40, 30)).save(path)
    main([str(folder / 'seg.py'), str(folder / 'seg.pth'), *given, '--out', 'out'])
    assert below(Path('out/masks')) == below(Path('out/pictures')) == masks
    if len(images) < 3:
        return
    main([str(folder / 'det.py'), str(folder / 'det.pth'), *given, '--out', 'out'])
    assert below(Path('out/pictures')) == masks
    listed = json.loads(Path('out/predictions.json').read_text())['images']
    shared = os.path.commonpath([Path('in', name).parent for name in images])
    names = sorted(os.path.relpath(f'in/{name}', shared) for name in images)
    assert sorted(each['file_name'] for each in listed) == names


@pytest.mark.parametrize('out', ['in/out', 'in', 'in/a/../out/'])
def test_results_below_the_images_are_no_images_of_the_next_run(
    out, folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / 'in', (64, 96), (30, 40))
    arguments = [str(folder / 'seg.py'), str(folder / 'seg.pth'), '--out', out]
    assert main([*arguments, 'in']) == 0
    written = below(Path('in'))
    capsys.readouterr()
    assert main([*arguments, 'in']) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first == f'left out 4 images of earlier results in {Path(out)}'
    assert last.startswith('2 images: ')
    assert below(Path('in')) == written
    assert main([*arguments, f'{out}/masks', f'{out}/pictures/*']) == 2
    places = ', '.join(str(Path(out) / name) for name in ('masks', 'panoptic', 'pictures'))
    assert capsys.readouterr().err == (
        f'error: all images lie in {places}, where results go: take another --out DIR\n'
    )


@pytest.mark.parametrize('stop', [KeyboardInterrupt, RuntimeError])
def test_a_stopped_run_writes_the_objects_of_the_images_that_it_did(
    stop, folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / 'in', *[(64, 96)] * 3)
    (tmp_path / 'in/aa.png').write_bytes(b'no image')
    draw, drawn = prediction_files.draw_overlay, []

    def stopped(*given):
        drawn.append(1)
        if len(drawn) == 3:
            raise stop('stopped here')
        return draw(*given)

    monkeypatch.setattr(prediction_files, 'draw_overlay', stopped)
    arguments = [str(folder / 'det.py'), str(folder / 'det.pth'), 'in', '--out', 'out']
    assert main([*arguments, '--score-thr', '0']) == (130 if stop is KeyboardInterrupt else 2)
    content = json.loads(Path('out/predictions.json').read_text())
    assert [each['file_name'] for each in content['images']] == ['a.png', 'b.png']
    assert {each['image_id'] for each in content['annotations']} == {1, 2}
    number = len(content['annotations'])
    line = capsys.readouterr().err.splitlines()[0]
    assert line == (
        f'stopped after 2 images, {number} objects of score 0 or more: '
        'out/pictures, out/predictions.json · 1 unreadable, see out/unreadable.txt'
    )


def test_no_object_is_said(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / 'in', (64, 96))
    arguments = [str(folder / 'det.py'), str(folder / 'det.pth'), 'in', '--out', 'out']
    assert main([*arguments, '--score-thr', '1']) == 0
    assert capsys.readouterr().out.startswith(
        '1 image, 0 objects of score 1 or more (a lower threshold shows weaker ones): out/pictures'
    )


SHAPES = (1, 400), (400, 1), (1, 1), (5000, 10), (10, 5000), (3, 3)


@pytest.mark.parametrize(('name', 'batch'), [('seg', '1'), ('seg', '3'), ('det', '1')])
def test_extreme_images_are_read_or_skipped_in_plain_words(
    name, batch, folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    paths = write_images(tmp_path / 'in', *SHAPES, (64, 96))
    main([str(folder / f'{name}.py'), str(folder / f'{name}.pth'), 'in', '--out', 'out',
          '--batch-size', batch])  # fmt: skip
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith('3 images')
    assert line.endswith(' · 4 unreadable, see out/unreadable.txt')
    why = "it has {}x{} pixels, of which the config's Resize leaves no row or column"
    assert Path('out/unreadable.txt').read_text().splitlines() == [
        f'{path.relative_to(tmp_path)}: {why.format(*size)}'
        for path, size in zip(paths, SHAPES, strict=False)
        if max(size) > 3
    ]
    assert below(Path('out/pictures')) == ['c.png', 'f.png', 'g.png']


@pytest.mark.parametrize(
    ('name', 'options'), [('seg', []), ('seg', ['--slide', '40', '30', '--flip']), ('det', [])]
)
def test_extreme_images_that_no_resize_shrinks_are_read(
    name, options, folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    text, scale = (folder / f'{name}.py').read_text(), 'scale=(96, 64), keep_ratio=True'
    assert scale in text
    Path('own.py').write_text(text.replace(scale, 'scale_factor=1.0'))
    sizes = [each for each in SHAPES if max(each) < 1000]
    write_images(tmp_path / 'in', *sizes)
    main(['own.py', str(folder / f'{name}.pth'), 'in', '--out', 'out', *options])
    assert capsys.readouterr().out.splitlines()[-1].startswith('4 images')
    if name == 'seg':
        shown = [Image.open(f'out/masks/{each}.png').size[::-1] for each in 'abcd']
        assert shown == sizes


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('seg', ['--slide', '8', '9'], 'error: --slide 8 9: CROP and STRIDE are '),
        (
            'seg',
            ['--slide', '2', '1'],
            "error: --slide 2 1: CROP must be at least the ViT's patch, ",
        ),
        (
            'seg',
            ['--slide', '2000', '64'],
            "error: --slide 2000 64: no image is larger than a window after the config's Resize, "
            'the largest is ',
        ),
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
    assert (code, errors) == (
        2,
        [
            'stopped after 1 image: out/masks, out/pictures',
            'error: No space left on device: out/masks/b.png',
        ],
    )
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
