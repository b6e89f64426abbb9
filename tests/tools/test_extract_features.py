"""`tools/extract_features.py`: the numbers, going on after a kill, and what bad input gets."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, load_tool
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file
from torch.nn import functional as F

from vit_backbones.embeddings.answers import Questions
from vit_backbones.features import job as extraction
from vit_backbones.features import parts
from vit_backbones.features.extractor import Extractor
from vit_backbones.files import write_whole
from vit_backbones.images import UnreadableImageError, image_size, read_image
from vit_backbones.loaders import RGB_READER
from vit_backbones.models import chosen
from vit_backbones.models.chosen import Choice, load_backbone
from vit_backbones.sources.timm_plain import TimmPlain

pq = pytest.importorskip('pyarrow.parquet')
MODEL = ['--model', 'test_vit', '--random-weights', '0', '--device', 'cpu']
CHOICE = Choice(model='test_vit', random_weights=0)
# Height, width and mode
IMAGES = {
    'a.png': (40, 60, 'RGB'),
    'b.jpg': (50, 33, 'RGB'),
    'deep.png': (40, 60, 'I;16'),
    'e.png': (40, 60, 'RGB'),
    'f.png': (40, 60, 'RGB'),
    'grey.png': (40, 60, 'L'),
    'one.png': (1, 1, 'RGB'),
    'rgba.png': (40, 60, 'RGBA'),
    'turned.jpg': (30, 20, 'RGB'),
    'wide.png': (5, 300, 'RGB'),
}


def draw(folder, names=tuple(IMAGES)):
    folder.mkdir()
    for number, name in enumerate(names):
        height, width, mode = IMAGES[name]
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 4), np.uint8)
        if mode == 'I;16':
            image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
        else:
            image = Image.fromarray(pixels).convert(mode)
        exif = Image.Exif()
        exif[0x0112] = 6 if name == 'turned.jpg' else 1
        image.save(folder / name, exif=exif)


@pytest.fixture(scope='module')
def main():
    return load_tool('extract_features').main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with images."""
    monkeypatch.chdir(tmp_path)
    draw(Path('images'))
    return tmp_path


@pytest.fixture
def few(tmp_path, monkeypatch):
    """The current folder, with five images of two sizes."""
    monkeypatch.chdir(tmp_path)
    draw(Path('images'), ['a.png', 'b.jpg', 'e.png', 'f.png', 'grey.png'])
    return tmp_path


@pytest.fixture
def often(monkeypatch):
    """Every batch is a part of its own."""
    monkeypatch.setattr(parts, '_SECONDS', 0)


@torch.no_grad()
def expected(path, **options):
    """What the backbone gives for one image of a file, one array an output."""
    loaded = load_backbone(CHOICE._replace(layers=options.pop('layers', None)), **options)
    images = np.stack([read_image(path)])
    return [out[0].numpy() for out in loaded.backbone(loaded.normalised(images))]


def close(got, wanted):
    return np.abs(got - wanted).max() <= 1e-5 * max(1, np.abs(wanted).max())


def embeddings(file):
    table = pq.read_table(file)
    return dict(
        zip(table['path'].to_pylist(), np.array(table['embedding'].to_pylist()), strict=True)
    )


def metadata(file):
    return json.loads(pq.read_schema(file).metadata[b'vit_backbones'])


# Numbers


def test_embeddings_of_every_kind_of_image(main, folder, capsys):
    assert main(['images', *MODEL, '--out', 'new/a.parquet', '--batch-size', '3']) == 0
    table, got = pq.read_table('new/a.parquet'), embeddings('new/a.parquet')
    assert list(got) == [f'images/{name}' for name in sorted(IMAGES)]
    assert all(close(got[path], expected(path, pool='model')[0]) for path in got)
    sizes = zip(table['height'].to_pylist(), table['width'].to_pylist(), strict=True)
    told = {name: IMAGES[name][:2] for name in sorted(IMAGES)} | {'turned.jpg': (20, 30)}
    assert list(sizes) == list(told.values())
    kinds = ['string', 'int32', 'int32', 'fixed_size_list<element: float>[64]']
    assert [str(kind) for kind in table.schema.types] == kinds
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith('10 images, 64 numbers each (pool=model, layer 5) · ')
    assert line.endswith(' images/s · new/a.parquet')
    assert os.listdir('new') == ['a.parquet']


def test_layers_are_joined_in_the_order_asked_for(main, few):
    options = ['--layers', '5', '0', '--pool', 'avg']
    assert main(['images/a.png', *MODEL, *options, '--out', 'a.parquet']) == 0
    wanted = expected('images/a.png', pool='avg', layers=['5', '0'])
    assert close(embeddings('a.parquet')['images/a.png'], np.concatenate(wanted))
    told = metadata('a.parquet')
    assert (told['layers'], told['dims'], told['pool']) == ([5, 0], [64, 64], 'avg')


def test_metadata_tell_how_it_was_made(main, few):
    assert main(['images/a.png', *MODEL, '--out', 'a.parquet', '--size', '32', '48']) == 0
    told = metadata('a.parquet')
    assert told['model'] == 'test_vit'
    assert told['weights'] == 'random, seed 0'
    assert told['mean'] == told['std'] == [127.5] * 3
    assert (told['size'], told['normalised'], told['dtype']) == ([32, 48], False, 'fp32')


def test_earlier_layers_fall_back_to_the_cls_token(main, few):
    assert main(['images/a.png', *MODEL, '--layers', '0', '--out', 'a.parquet']) == 0
    assert metadata('a.parquet')['pool'] == 'cls'


def test_normalised_embeddings_have_length_1(main, few):
    options = ['--layers', '0', '5', '--normalize', '--dtype', 'fp16']
    assert main(['images/a.png', *MODEL, *options, '--out', 'a.parquet']) == 0
    wanted = torch.from_numpy(np.concatenate(expected('images/a.png', pool='cls', layers=[0, 5])))
    got = embeddings('a.parquet')['images/a.png']
    assert np.abs(got - F.normalize(wanted, dim=0).numpy()).max() < 1e-3
    assert 'halffloat' in str(pq.read_schema('a.parquet').field('embedding').type)


def test_images_are_resized(main, few):
    assert main(['images/a.png', *MODEL, '--size', '20', '--out', 'a.parquet']) == 0
    with Image.open('images/a.png') as image:
        image.resize((30, 20), Image.Resampling.BICUBIC).save('small.png')
    got = embeddings('a.parquet')['images/a.png']
    assert close(got, expected('small.png', pool='model')[0])
    assert not close(got, expected('images/a.png', pool='model')[0])


@pytest.mark.parametrize('suffix', ['npz', 'safetensors'])
def test_maps_of_several_layers(suffix, main, few):
    out = f'a.{suffix}'
    assert main(['images', *MODEL, '--layers', '0', '5', '--out', out]) == 0
    got = dict(np.load(out)) if suffix == 'npz' else load_file(out)
    got.pop('vit_backbones', None)
    assert len(got) == 10
    for path in ('images/a.png', 'images/b.jpg'):
        for layer, wanted in zip((0, 5), expected(path, layers=[0, 5]), strict=True):
            assert got[f'{path}:{layer}'].shape == wanted.shape
            assert close(got[f'{path}:{layer}'], wanted)


def test_tokens_of_one_layer_and_their_metadata(main, few):
    options = ['--out-type', 'raw', '--out', 'a.safetensors', '--dtype', 'fp16']
    assert main(['images/b.jpg', *MODEL, *options]) == 0
    (got,) = load_file('a.safetensors').values()
    (wanted,) = expected('images/b.jpg', out_type='raw')
    assert got.dtype == np.float16
    assert np.abs(got - wanted).max() < 1e-2 * np.abs(wanted).max()
    with safe_open('a.safetensors', framework='numpy') as file:
        told = json.loads(file.metadata()['vit_backbones'])
    assert (told['pool'], told['num_prefix_tokens']) == ('raw', 1)


def test_models_of_one_size_get_images_of_it(main, few, monkeypatch, capsys):
    monkeypatch.setattr(TimmPlain, 'fixed_size', lambda self, vit: (48, 32))
    assert main(['images/a.png', *MODEL, '--out', 'a.npz']) == 0
    assert np.load('a.npz')['images/a.png'].shape == (64, 3, 2)
    told = 'test_vit takes only images of 48x32: 1 of 1 are resized'
    assert told in capsys.readouterr().err


def test_images_of_a_configs_dataset(main, few):
    (few / 'masks').mkdir()
    for path in Path('images').iterdir():
        Image.new('L', (3, 2)).save(few / 'masks' / f'{path.stem}.png')
    dataset = (
        "dict(type='BaseSegDataset', data_root='.', img_suffix='.png', seg_map_suffix='.png', "
        "data_prefix=dict(img_path='images', seg_map_path='masks'), pipeline=[], "
        "metainfo=dict(classes=('a',)))"
    )
    backbone = "dict(type='ViTFeatBackbone', model_name='test_vit', out_indices=(0, 5))"
    Path('config.py').write_text(
        f"default_scope = 'mmseg'\nmodel = dict(backbone={backbone})\n"
        f'val_dataloader = dict(dataset={dataset})\n'
    )
    options = ['--random-weights', '0', '--device', 'cpu', '--out', 'a.parquet']
    assert main(['--config', 'config.py', '--split', 'val', *options]) == 0
    assert [Path(path).name for path in embeddings('a.parquet')] == [
        'a.png',
        'e.png',
        'f.png',
        'grey.png',
    ]
    assert metadata('a.parquet')['layers'] == [0, 5]
    assert main(['--config', 'config.py', '--split', 'test', *options]) == 2


# Going on


def stop_after(monkeypatch, number, error=KeyboardInterrupt):
    """Let the computing of one more batch fail; gives the sizes of those that were computed."""
    run, sizes = Extractor.run, []

    def failing(self, images):
        if len(sizes) == number:
            raise error
        sizes.append(len(images))
        return run(self, images)

    monkeypatch.setattr(Extractor, 'run', failing)
    return sizes


COMMAND = ['images', *MODEL, '--batch-size', '2', '--out']


@pytest.mark.parametrize('suffix', ['parquet', 'npz', 'safetensors'])
def test_an_interrupted_run_goes_on(suffix, main, few, monkeypatch, capsys):
    out = f'a.{suffix}'
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert main([*COMMAND, out]) == 130
    assert not Path(out).exists()
    sizes = stop_after(monkeypatch, None)
    assert main([*COMMAND, out]) == 0
    assert sum(sizes) == 1
    assert '· 4 of them from an earlier run ·' in capsys.readouterr().out
    assert main([*COMMAND, f'whole.{suffix}']) == 0
    assert Path(out).read_bytes() == Path(f'whole.{suffix}').read_bytes()
    assert sorted(os.listdir()) == sorted([out, f'whole.{suffix}', 'images'])


def test_an_image_that_can_be_read_later_is_not_lost(main, few, often, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 2)

        def refused(path):
            if path.name == 'a.png':
                raise UnreadableImageError(f'{path}: Permission denied')
            return image_size(path)

        patch.setattr(chosen, 'RGB_READER', RGB_READER._replace(size=refused))
        assert main([*COMMAND, 'a.parquet']) == 130
    assert main([*COMMAND, 'a.parquet']) == 0
    assert main([*COMMAND, 'whole.parquet']) == 0
    got, wanted = embeddings('a.parquet'), embeddings('whole.parquet')
    assert list(got) == list(wanted)
    assert all(close(got[path], wanted[path]) for path in wanted)


def test_what_no_process_has_computed_is_missed(main, few, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(extraction, 'compute', lambda *_: None)
        assert main([*COMMAND, 'a.parquet']) == 2
    assert 'repeat this to compute the missing features' in capsys.readouterr().err
    assert main([*COMMAND, 'a.parquet']) == 0


def test_what_is_done_is_not_done_again(main, few, monkeypatch, capsys):
    assert main([*COMMAND, 'a.parquet']) == 0
    sizes = stop_after(monkeypatch, None)
    assert main([*COMMAND, 'a.parquet']) == 0
    assert sizes == []
    assert capsys.readouterr().out.splitlines()[-1] == 'a.parquet holds these features already'


@pytest.mark.parametrize(
    'other', [['--normalize'], ['--size', '32'], ['--random-weights', '1'], ['--pool', 'max']]
)
def test_an_output_of_another_job_is_kept(other, main, few, capsys):
    assert main([*COMMAND, 'a.parquet']) == 0
    before = Path('a.parquet').read_bytes()
    assert main([*COMMAND, 'a.parquet', *other]) == 2
    assert 'error: a.parquet exists and holds something else' in capsys.readouterr().err
    assert Path('a.parquet').read_bytes() == before
    assert main([*COMMAND, 'a.parquet', *other, '--overwrite']) == 0
    assert Path('a.parquet').read_bytes() != before


def test_a_changed_image_is_another_job(main, few):
    assert main([*COMMAND, 'a.parquet']) == 0
    os.utime('images/a.png', (1, 1))
    assert main([*COMMAND, 'a.parquet']) == 2


def test_a_foreign_file_is_kept(main, few):
    Path('a.parquet').write_text('mine')
    assert main([*COMMAND, 'a.parquet']) == 2
    assert Path('a.parquet').read_text() == 'mine'


def test_parts_of_another_job_are_kept(main, few, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        assert main([*COMMAND, 'a.parquet']) == 130
    assert main([*COMMAND, 'a.parquet', '--normalize']) == 2
    assert 'holds an unfinished run with other images, weights or' in capsys.readouterr().err
    assert main([*COMMAND, 'a.parquet', '--normalize', '--overwrite']) == 0


def test_a_full_disk_leaves_what_was_done(main, few, often, monkeypatch, capsys):
    def full(path, content):
        if Path(path).name.startswith('00000003'):
            raise OSError(28, 'No space left on device', str(path))
        return write_whole(path, content)

    with monkeypatch.context() as patch:
        patch.setattr('vit_backbones.features.parts.write_whole', full)
        assert main([*COMMAND, 'a.parquet']) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: No space left on device: ')
    assert error.count('\n') == 1
    assert not Path('a.parquet').exists()
    sizes = stop_after(monkeypatch, None)
    assert main([*COMMAND, 'a.parquet']) == 0
    assert sum(sizes) == 3


# Bad input


def test_unreadable_images_are_set_aside(main, few, capsys):
    Path('images/broken.png').write_bytes(b'nothing')
    whole = Path('images/b.jpg').read_bytes()
    Path('images/half.jpg').write_bytes(whole[: len(whole) // 2])
    assert main(['images', *MODEL, '--out', 'a.parquet']) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith('5 images, ')
    told = '2 unreadable: images/broken.png, images/half.jpg (listed in a.parquet.unreadable.txt)'
    assert line.endswith(told)
    first, second = Path('a.parquet.unreadable.txt').read_text().splitlines()
    assert first == 'images/broken.png: no image, or a damaged one'
    assert second.startswith('images/half.jpg: image file is truncated')
    assert close(embeddings('a.parquet')['images/b.jpg'], expected('images/b.jpg', pool='model')[0])
    Path('images/broken.png').unlink()
    Path('images/half.jpg').unlink()
    assert main(['images', *MODEL, '--out', 'a.parquet', '--overwrite']) == 0
    assert not Path('a.parquet.unreadable.txt').exists()


def test_names_that_are_no_utf8_are_told(main, few, capsys):
    shutil.copy('images/a.png', b'images/\xff.png')
    assert main(['images', *MODEL, '--out', 'a.parquet']) == 0
    assert '1 unreadable: images/\\udcff.png (listed' in capsys.readouterr().out
    listed = Path('a.parquet.unreadable.txt').read_bytes()
    assert listed == b'images/\xff.png: its name is not UTF-8\n'


def test_an_image_of_another_size_than_its_header_tells_is_set_aside(main, few, monkeypatch):
    other = RGB_READER._replace(size=lambda path: (40, 60))
    monkeypatch.setattr(chosen, 'RGB_READER', other)
    assert main(['images', *MODEL, '--out', 'a.parquet']) == 0
    told = Path('a.parquet.unreadable.txt').read_text()
    assert told == 'images/b.jpg: its header gives another size\n'


def test_unreadable_images_alone_are_a_failure(main, few, capsys):
    Path('broken.png').write_bytes(b'nothing')
    assert main(['broken.png', *MODEL, '--out', 'a.parquet']) == 2
    told = capsys.readouterr().err
    assert told.startswith('error: none of 1 images can be read: broken.png (no image')
    assert sorted(os.listdir()) == ['a.parquet.unreadable.txt', 'broken.png', 'images']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['images', *MODEL, '--out', 'a.csv'], r'--out a.csv: write to one of \*.parquet'),
        (['images', *MODEL, '--out', 'a.parquet', '--out-type', 'featmap'], 'holds embeddings'),
        (['images', *MODEL, '--out', 'a.npz', '--out-type', 'cls', '--pool', 'avg'], 'give one'),
        (['images', *MODEL, '--out', 'a.npz', '--normalize'], "'featmap' gives none"),
        (
            ['images', *MODEL, '--out', '/proc/none/a.parquet'],
            'written: No such file .*/proc',
        ),
        (
            ['images', *MODEL, '--out', 'images/a.png/a.parquet'],
            'written: Not a dir',
        ),
        (['images', *MODEL, '--out', 'a.parquet', '--size', '0'], '--size takes'),
        (['images', *MODEL, '--out', 'a.parquet', '--layers', '9'], 'has 6 blocks, got 9'),
        (['images', *MODEL, '--out', 'a.parquet', '--pool', 'attn'], '--pool attn: .* has no att'),
        (['none', *MODEL, '--out', 'a.parquet'], 'none: no such image'),
        (['empty', *MODEL, '--out', 'a.parquet'], 'empty: no images in this folder'),
        (['images', *MODEL[:2], '--out', 'a.parquet'], 'random weights help nobody'),
        (['images', *MODEL, '--out', 'a.parquet', '--device', 'gpu'], '--device gpu: Expected'),
    ],
    ids=lambda value: str(value)[-30:],
)
def test_mistakes_get_one_line(arguments, message, main, few, capsys):
    Path('empty').mkdir()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1
    assert re.search(message, error)
    assert sorted(os.listdir()) == ['empty', 'images']


def test_numbers_beyond_half_precision_are_refused(main, few, monkeypatch, capsys):
    monkeypatch.setattr(Extractor, '_formed', lambda self, outputs: [outputs[0] * 1e6])
    assert main(['images', *MODEL, '--dtype', 'fp16', '--out', 'a.parquet']) == 2
    assert 'the features are not finite as float16' in capsys.readouterr().err


def test_without_pyarrow_the_fix_is_told(main, few, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    assert main(['images', *MODEL, '--out', 'a.parquet']) == 2
    assert 'Parquet needs pyarrow: pip install vit_backbones[tools]' in capsys.readouterr().err


# In the shell

ENVIRONMENT = os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(REPOSITORY)}


def command(*arguments, launcher=()):
    return [sys.executable, *launcher, str(REPOSITORY / 'tools/extract_features.py'), *arguments]


def digest(file):
    rows = pq.read_table(file).sort_by('path').to_pylist()
    return hashlib.sha256(repr(rows).encode()).hexdigest()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_run_goes_on_to_the_same_rows(few):
    for number in range(30):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 48, 3), np.uint8)
        Image.fromarray(pixels).save(f'images/{number:03}.png')
    arguments = ['images', '--model', 'vit_tiny_patch16_224', '--random-weights', '0', '--size']
    arguments += ['384', '--device', 'cpu', '--batch-size', '2', '--out']
    script = (  # the tool with a part after each batch
        'import runpy, sys; import vit_backbones.features.parts as c; c._SECONDS = 0; '
        f'sys.argv[0] = {command()[1]!r}; sys.path.insert(0, {str(REPOSITORY / "tools")!r}); '
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    running = subprocess.Popen(
        [sys.executable, '-c', script, *arguments, 'a.parquet'], env=ENVIRONMENT
    )
    parts = Path('.a.parquet.parts')
    while not list(parts.glob('*.safetensors')) and running.poll() is None:
        time.sleep(0.05)
    time.sleep(np.random.default_rng().uniform(0, 1))
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert parts.exists()
    assert not Path('a.parquet').exists()
    said = subprocess.check_output(command(*arguments, 'a.parquet'), env=ENVIRONMENT, text=True)
    assert 'from an earlier run' in said
    subprocess.check_call(command(*arguments, 'whole.parquet'), env=ENVIRONMENT)
    assert digest('a.parquet') == digest('whole.parquet')


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_write_what_one_does(few):
    launcher = ('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2')
    said = subprocess.check_output(
        command(*COMMAND, 'two.parquet', launcher=launcher), env=ENVIRONMENT, text=True
    )
    assert said.count('5 images') == 1
    subprocess.check_call(command(*COMMAND, 'one.parquet'), env=ENVIRONMENT)
    assert Path('two.parquet').read_bytes() == Path('one.parquet').read_bytes()
    assert not list(Path().glob('.*'))


def test_embeddings_are_asked_at_once_and_later(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    draw(Path('images'), ('a.png', 'b.jpg', 'e.png', 'f.png', 'grey.png'))
    main, out = load_tool('extract_features').main, ['--out', 'f.parquet']
    assert main(['images', *MODEL, *out, '--cluster', '2', '--pool', 'avg']) == 0
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert first.startswith('5 images, 64 numbers each (pool=avg, layer 5)')
    assert second.startswith('2 clusters of ')
    assert main([*out, '--search', 'images/a.png', '--top', '2']) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    shutil.copy('images/a.png', 'query.png')
    assert main([*out, '--search', 'query.png', *MODEL, '--pool', 'avg']) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ['1', '1.000', 'images/a.png']
    assert main([*out, '--search', 'query.png', *MODEL, '--pool', 'max']) == 2
    assert 'f.parquet was made with --pool avg, now it is max' in capsys.readouterr().err
    assert main([*out, '--search', 'query.png']) == 2
    assert 'query.png is not in f.parquet: name the model' in capsys.readouterr().err
    assert main(['--out', 'no/f.parquet', '--search', 'query.png', *MODEL]) == 2
    assert capsys.readouterr().err == 'error: no/f.parquet does not exist\n'
    assert not Path('no').exists()


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (['--out', 'a.parquet'], 'name IMAGES, or --split of a --config, or ask what FILE holds'),
        (['a.png', '--out', 'a.npz', '--plot', 'pca'], 'need --out FILE.parquet'),
    ],
)
def test_questions_without_a_place_for_them_are_refused(given, message, capsys):
    with pytest.raises(SystemExit, match='2'):
        load_tool('extract_features').main(given)
    assert message in capsys.readouterr().err


def test_the_order_of_channels_is_part_of_the_job():
    loaded = load_backbone(CHOICE)
    both = [Extractor(each).fingerprint() for each in (loaded, loaded._replace(is_bgr=True))]
    assert both[0] != both[1]


def test_the_command_line_gives_the_questions():
    parse = load_tool('extract_features').parse_args
    words = '--out a.parquet --search a.png --top 3 --plot pca --cluster 4 --classify l.csv'
    args, usual = parse(words.split()), parse(['a.png', '--out', 'a.parquet'])
    asked = Questions(**{name: getattr(args, name) for name in Questions._fields})
    assert asked == Questions('a.png', 3, 'pca', 4, 'l.csv')
    assert Questions(**{name: getattr(usual, name) for name in Questions._fields}) == Questions()
