"""tools/visualize.py."""

import numpy as np
import pytest
from conftest import load_tool
from PIL import Image
from trained_models import write_images, write_segmenter

main = load_tool('visualize').main
BACKBONE = ['--model', 'test_vit', '--random-weights', '0', '--size', '40', '--out', 'out']


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images('images', (40, 64), (64, 40))
    return 'images'


def names(folder):
    return sorted(path.name for path in folder.rglob('*.png'))


def test_pca_is_what_is_drawn(images, tmp_path, capsys):
    assert main([images, *BACKBONE]) == 0
    assert names(tmp_path / 'out') == ['a_pca.png', 'b_pca.png', 'contact_sheet.png']
    assert '2 pictures: out/*_pca.png, out/contact_sheet.png\n' in capsys.readouterr().out
    assert Image.open('out/a_pca.png').width == 5 * 70  # the image and four layers


def test_attention_tells_whose_it_is(images, tmp_path, capsys):
    (tmp_path / 'images/c.png').write_bytes(b'no image')
    assert main([images, '--attention', '--heads', '1', '--layers', '1', '-1', *BACKBONE]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.endswith(' · attention of the CLS token · 1 unreadable, see out/unreadable.txt')
    assert names(tmp_path / 'out')[:2] == ['a_attention.png', 'b_attention.png']


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--attention', '--heads', '5'], 'error: --heads 5: layer 5 has the heads 0 to 1'),
        (['--layers', '9'], 'error: out_indices must be'),
        (['--size', '1', '2', '3'], 'error: --size takes the shorter side in pixels'),
    ],
)
def test_what_there_is_not_is_one_line(options, message, images, tmp_path, capsys):
    assert main([images, *BACKBONE, *options]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(message)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--model', 'x'], 'name IMAGES to draw'),
        (['--predictions'], '--predictions goes with --config and --checkpoint'),
        (['a.png', '--num', '0'], '--num: takes whole numbers from 1, got 0'),
        (['a.png', '--score-thr', '0.5'], '--score-thr goes with --predictions'),
        (['a.png', '--joint', '--attention'], '--joint goes with --pca'),
        (['a.png', '--heads', '0'], '--heads goes with --attention'),
        (
            ['--predictions', '--config', 'a', '--checkpoint', 'b', '--layers', '1'],
            '--layers goes with --pca or --attention',
        ),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit, match='2'):
        main([*arguments, '--out', 'out'])
    assert message in capsys.readouterr().err


def test_predictions_stand_beside_the_truth(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config, checkpoint = write_segmenter('.')
    write_images('seg/images', *[(64, 96)] * 4)
    for name in 'abcd':
        (tmp_path / 'seg/labels').mkdir(exist_ok=True)
        Image.fromarray(np.full((64, 96), 1, np.uint8)).save(f'seg/labels/{name}.png')
    options = ['--config', config, '--checkpoint', checkpoint, '--num', '2', '--out', 'out']
    assert main(['--predictions', *options]) == 0
    expected = ['00000_a_predictions.png', '00002_c_predictions.png', 'contact_sheet.png']
    assert names(tmp_path / 'out') == expected
    picture = np.asarray(Image.open('out/00000_a_predictions.png')).astype(int)
    image, truth = picture[100:300, 3:483], picture[100:300, 489:969]  # enlarged five times
    assert abs(truth - (image + np.array((0, 0, 200))) / 2).max() <= 1
    line = f'error: {config} has no train_dataloader: choose another --split\n'
    with open(config, 'a') as file:
        file.write('\ntrain_dataloader = None\n')
    assert main(['--predictions', *options, '--split', 'train']) == 2
    assert line in capsys.readouterr().err


def test_images_to_train_on_are_drawn_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config, checkpoint = write_segmenter('.')
    write_images('seg/images', (64, 96))
    (tmp_path / 'seg/labels').mkdir()
    Image.fromarray(np.repeat(np.uint8([[0, 1]]), 48, axis=1).repeat(64, 0)).save(
        'seg/labels/a.png'
    )
    with open(config, 'a') as file:
        file.write(
            "pipeline.insert(2, dict(type='RandomFlip', prob=1.0))\n"
            "train_dataloader['dataset'] = dict(\n"
            "    type='RepeatDataset', times=9, dataset=train_dataloader['dataset'])\n"
        )
    options = ['--config', config, '--checkpoint', checkpoint, '--split', 'train', '--out', 'out']
    assert main(['--predictions', *options]) == 0
    assert names(tmp_path / 'out') == ['00000_a_predictions.png', 'contact_sheet.png']
    picture = np.asarray(Image.open('out/00000_a_predictions.png')).astype(int)
    image, truth = picture[100:300, 3:483], picture[100:300, 489:969]
    assert abs(truth[:, 240:] - (image[:, 240:] + np.array((0, 0, 200))) / 2).max() <= 1


def test_missing_data_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config, checkpoint = write_segmenter('.')
    options = ['--config', config, '--checkpoint', checkpoint, '--out', 'out']
    assert main(['--predictions', *options]) == 2
    assert "'seg' does not exist" in capsys.readouterr().err
