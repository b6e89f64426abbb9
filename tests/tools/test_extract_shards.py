"""`tools/extract_features.py` on shards: the numbers, shared work, kills, bad input, questions."""

import hashlib
import io
import json
import multiprocessing
import os
import signal
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import load_tool
from PIL import Image

from vit_backbones.embeddings import answers
from vit_backbones.features import shard_batches
from vit_backbones.features.extractor import Extractor

pq = pytest.importorskip('pyarrow.parquet')
pa = pytest.importorskip('pyarrow')
MODEL = ['--model', 'test_vit', '--random-weights', '0', '--device', 'cpu', '--batch-size', '3']
SIZES = [(40, 60), (50, 33), (40, 60), (32, 48)]
IMAGES, SHARDS = 5, 6  # in each


def pictures(shard, number=IMAGES):
    """Files of images by key, of several sizes."""
    found = {}
    for i in range(number):
        random = np.random.default_rng(100 * shard + i)
        pixels = random.integers(0, 256, (*SIZES[(shard + i) % 4], 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, 'PNG')
        found[f'{shard}{i:03}'] = file.getvalue()
    return found


def write_tar(path, files):
    with tarfile.open(path, 'w') as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture(scope='module')
def main():
    return load_tool('extract_features').main


@pytest.fixture
def shards(tmp_path, monkeypatch):
    """The current folder, with tar files in `shards`."""
    monkeypatch.chdir(tmp_path)
    for name in ('RANK', 'WORLD_SIZE', 'SLURM_ARRAY_TASK_ID'):
        monkeypatch.delenv(name, raising=False)
    Path('shards').mkdir()
    for shard in range(SHARDS):
        files = {f'{key}.png': content for key, content in pictures(shard).items()}
        write_tar(f'shards/{shard:03}.tar', files)
    return tmp_path


def rows(folder):
    """All rows of a data set by file, without the paths and times of its shards."""
    return {path.name: pq.read_table(path).to_pylist() for path in Path(folder).glob('*.parquet')}


def digests(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in Path(folder).glob('*.parquet')
    }


def names(folder='emb'):
    return sorted(os.listdir(folder))


WHOLE = [*(f'{i:03}.parquet' for i in range(SHARDS)), '_settings.json']


# Numbers


def test_tars_tables_and_files_give_equal_embeddings(main, shards, capsys):
    files = pictures(0)
    Path('images').mkdir()
    for key, content in files.items():
        Path(f'images/{key}.png').write_bytes(content)
    structs = [dict(bytes=content, path=None) for content in files.values()]
    pq.write_table(pa.table(dict(image=pa.array(structs))), 'table.parquet', row_group_size=2)
    assert main(['shards/000.tar', *MODEL, '--out', 'tar']) == 0
    assert capsys.readouterr().out.startswith(
        '5 images of 1 shard, 64 numbers each (pool=model, layer 5) · 0 s · '
    )
    assert main(['table.parquet', *MODEL, '--out', 'table']) == 0
    assert main(['images', *MODEL, '--out', 'files']) == 0
    assert main(['images', *MODEL, '--out', 'one.parquet']) == 0
    (of_tar,), (of_table,), (of_files,) = (
        rows(each).values() for each in ('tar', 'table', 'files')
    )
    assert [row['key'] for row in of_tar] == list(files)
    assert {row['shard'] for row in of_tar} == {'shards/000.tar'}
    assert [(row['key'], row['shard']) for row in of_table[:2]] == [
        ('0', 'table.parquet'),
        ('1', 'table.parquet'),
    ]
    assert [row['key'] for row in of_files] == [f'images/{key}.png' for key in files]
    assert {row['shard'] for row in of_files} == {None}
    one = pq.read_table('one.parquet').to_pylist()
    for found in (of_tar, of_table, of_files):
        assert [row['embedding'] for row in found] == [row['embedding'] for row in of_tar]
        assert [(row['height'], row['width']) for row in found] == [SIZES[i % 4] for i in range(5)]
    both = [[row['embedding'] for row in each] for each in (of_tar, one)]
    assert np.abs(np.subtract(*both)).max() < 1e-5


def test_the_schema_and_the_metadata(main, shards):
    assert main(['shards/000.tar', *MODEL, '--dtype', 'fp16', '--out', 'emb']) == 0
    schema = pq.read_schema('emb/000.parquet')
    assert [f'{each.name} {each.type}' for each in schema] == [
        'key string',
        'shard string',
        'height int32',
        'width int32',
        'embedding fixed_size_list<element: halffloat>[64]',
    ]
    noted = json.loads(schema.metadata[b'vit_backbones'])
    assert (noted['model'], noted['batch_size'], noted['dtype']) == ('test_vit', 3, 'fp16')
    assert noted['counts'] == dict(images=5, unreadable=0, deep=0)
    assert noted['shard']['file'] == '000.tar'


def test_few_images_wait_at_once(main, shards, monkeypatch):
    assert main(['shards', *MODEL, '--out', 'many']) == 0
    monkeypatch.setattr(shard_batches, '_BYTES', 1)  # each batch is one image
    assert main(['shards', *MODEL, '--out', 'few']) == 0
    for one, other in zip(rows('many').values(), rows('few').values(), strict=True):
        both = [[row['embedding'] for row in each] for each in (one, other)]
        assert [row['key'] for row in one] == [row['key'] for row in other]
        assert np.abs(np.subtract(*both)).max() < 1e-5


# Shared work


def test_processes_share_shards_and_write_what_one_does(main, shards, monkeypatch, capsys):
    assert main(['shards', *MODEL, '--out', 'one']) == 0
    monkeypatch.setenv('WORLD_SIZE', '4')
    for rank in (2, 0, 3):
        monkeypatch.setenv('RANK', str(rank))
        assert main(['shards', *MODEL, '--out', 'emb']) == 0
    assert names() == [WHOLE[i] for i in (0, 2, 3, 4, 6)]
    said = capsys.readouterr().out.splitlines()
    assert said[1].startswith('process 2 of 4 · 5 images of 1 shard, ')
    assert said[2].endswith(' · emb has 3 of 6 shards')
    monkeypatch.delenv('RANK')
    monkeypatch.delenv('WORLD_SIZE')
    assert main(['shards', *MODEL, '--out', 'emb']) == 0
    line = capsys.readouterr().out
    assert ' · 4 shards from an earlier run · ' in line
    assert line.endswith(' · emb has 6 of 6 shards\n')
    assert digests('emb') == digests('one')


def work(main, rank, count):
    """A process of its own, which takes its time for each batch."""
    torch.set_num_threads(1)  # threads of OpenMP do not outlive a fork
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(count))
    run = Extractor.run
    Extractor.run = lambda *given: (time.sleep(0.1), run(*given))[1]
    os._exit(main(['shards', *MODEL, '--out', 'emb']))


def test_killed_processes_and_others_write_what_one_does(main, shards):
    """Two processes are killed at work; three others go on."""
    assert main(['shards', *MODEL, '--out', 'one']) == 0
    fork = multiprocessing.get_context('fork')
    running = [fork.Process(target=work, args=(main, rank, 2)) for rank in range(2)]
    for each in running:
        each.start()
    while not list(Path('emb').glob('*.parquet')) and running[0].is_alive():
        time.sleep(0.02)
    for each, number in zip(running, (signal.SIGKILL, signal.SIGINT), strict=True):
        os.kill(each.pid, number)
    for each in running:
        each.join(60)
    assert [each.exitcode for each in running] == [-9, 130]
    present = digests('emb')
    assert 1 <= len(present) < SHARDS
    assert present.items() <= digests('one').items()
    for task in range(3):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv('SLURM_ARRAY_TASK_ID', str(task + 1))
            patch.setenv('SLURM_ARRAY_TASK_MIN', '1')
            patch.setenv('SLURM_ARRAY_TASK_COUNT', '3')
            assert main(['shards', *MODEL, '--out', 'emb']) == 0
    assert digests('emb') == digests('one')
    assert names() == WHOLE


# Going on


def test_other_options_are_refused_and_overwrite_takes_over(main, shards, capsys):
    assert main(['shards', *MODEL, '--out', 'emb']) == 0
    before = digests('emb')
    for other, said in (
        (['--pool', 'avg'], 'emb was made with --pool model, now it is avg: repeat the options'),
        (['--size', '32'], 'emb was made with size=None, now it is [32]: repeat the options'),
        (['--batch-size', '2'], 'emb was made with --batch-size 3, now it is 2: repeat'),
        (['--random-weights', '1'], 'emb was made with weights=random, seed 0, now it is'),
    ):
        assert main(['shards', *MODEL, '--out', 'emb', *other]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f'error: {said}')
        assert error.count('\n') == 1
    assert digests('emb') == before
    assert (
        main(['shards/{000..001}.tar', *MODEL, '--out', 'emb', '--pool', 'avg', '--overwrite']) == 0
    )
    assert names() == ['000.parquet', '001.parquet', '_settings.json']
    assert json.loads(Path('emb/_settings.json').read_text())['pool'] == 'avg'


def test_a_shard_that_has_changed_is_not_mixed_up(main, shards, capsys):
    assert main(['shards', *MODEL, '--out', 'emb']) == 0
    before = digests('emb')
    write_tar('shards/001.tar', {'x.png': pictures(9)['9000']})
    assert main(['shards', *MODEL, '--out', 'emb']) == 2
    assert 'emb/001.parquet was made of another shards/001.tar (size, time or names' in (
        capsys.readouterr().err
    )
    assert main(['shards', *MODEL, '--out', 'emb', '--overwrite']) == 0
    after = digests('emb')
    assert [name for name in after if after[name] != before[name]] == ['001.parquet']


def test_a_foreign_folder_is_kept(main, shards, capsys):
    Path('emb').mkdir()
    Path('emb/mine.parquet').write_text('mine')
    assert main(['shards', *MODEL, '--out', 'emb']) == 2
    assert 'emb holds mine.parquet and no _settings.json: it is no data set' in (
        capsys.readouterr().err
    )
    assert names() == ['mine.parquet']


# Bad input


def test_damaged_shards_and_images_are_named_and_counted(main, shards, capsys):
    bad = pictures(9) | {'half': pictures(9)['9000'][:90], 'text': b'404'}
    write_tar('shards/001.tar', {f'{key}.png': content for key, content in bad.items()})
    whole = Path('shards/003.tar').read_bytes()
    Path('shards/003.tar').write_bytes(whole[:1000])
    write_tar('shards/004.tar', {'text.png': b'404'})
    assert main(['shards', *MODEL, '--out', 'emb']) == 0
    line = capsys.readouterr().out
    assert ' images of 5 shards, 64 numbers each ' in line
    assert ' · emb has 5 of 6 shards · 3 images unreadable (listed in emb/_unreadable) · ' in line
    assert line.endswith(' · left out shards/003.tar: it ends too early\n')
    listed = {path.name: path.read_text() for path in Path('emb/_unreadable').iterdir()}
    assert listed['001.txt'].splitlines()[1] == 'text: no image, or a damaged one'
    assert listed['003.txt'] == 'shards/003.tar: it ends too early\n'
    assert len(rows('emb')['001.parquet']) == 5
    assert rows('emb')['004.parquet'] == []
    assert pq.read_schema('emb/004.parquet').equals(pq.read_schema('emb/000.parquet'))
    Path('shards/003.tar').write_bytes(whole)
    assert main(['shards', *MODEL, '--out', 'emb']) == 0
    assert 'left out' not in capsys.readouterr().out
    assert names('emb/_unreadable') == ['001.txt', '004.txt']


def test_deep_images_are_counted(main, shards, capsys):
    file = io.BytesIO()
    Image.fromarray(np.full((40, 60), 40000, np.uint16)).save(file, 'PNG')
    write_tar('deep.tar', {'a.png': file.getvalue()})
    assert main(['deep.tar', *MODEL, '--out', 'emb']) == 0
    assert ' · 1 image of more than 8 bits read as 8-bit\n' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['shards', '--out', 'a.parquet'], 'shards/000.tar: the features of shards go to a folder'),
        (['shards', '--out', 'a.tar'], '--out a.tar: write to one of *.parquet, *.npz, *.safet'),
        (['text.tar', '--out', 'emb'], 'none of 1 shard can be read: text.tar (no tar file, or a'),
        (['text.png', '--out', 'emb'], 'none of 1 image can be read: they are listed in emb/_unr'),
        (['shards', '--out', 'text.tar/emb'], 'text.tar/emb cannot be written: Not a directory'),
        (['shards', '--out', 'emb', '--out-type', 'raw'], 'Parquet holds embeddings'),
        (['x.png', '--out', 'a.npz', '--image-key', 'a'], '--image-key is of shards, whose'),
        (
            ['shards', '--out', 'emb', '--image-key', 'jpg'],
            'none of 6 shards can be read: shards/0',
        ),
    ],
)
def test_mistakes_get_one_line(arguments, message, main, shards, capsys):
    for name in ('text.tar', 'text.png'):
        Path(name).write_text('404 not found\n' * 99)
    assert main([*arguments, *MODEL]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count('\n') == 1


# Questions


def test_a_data_set_is_searched_clustered_and_classified(main, shards, capsys):
    out = ['--out', 'emb']
    assert main(['shards', *MODEL, *out, '--cluster', '2']) == 0
    assert '2 clusters of ' in capsys.readouterr().out
    assert main([*out, '--search', 'shards/002.tar/2001', '--top', '2']) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.split()[2].startswith('shards/00')
    assert last == 'written: emb.search.png'
    Path('labels.csv').write_text(
        'path,label\n'
        + ''.join(f'{s}.tar/{k},{s}\n' for s in ('000', '001') for k in pictures(int(s)))
    )
    assert main([*out, '--classify', 'labels.csv']) == 0
    assert 'accuracy by 5 folds of 10 images in 2 classes' in capsys.readouterr().out


def test_a_large_data_set_is_searched_with_bounded_memory(main, shards, monkeypatch, capsys):
    assert main(['shards', *MODEL, '--out', 'emb']) == 0
    ask = ['--out', 'emb', '--search', '2001', '--top', '3']
    capsys.readouterr()
    assert main(ask) == 0
    exact = capsys.readouterr().out.splitlines()
    monkeypatch.setattr(answers, 'MOST', 10)
    monkeypatch.setitem(sys.modules, 'faiss', None)
    monkeypatch.setattr(answers.importlib.util, 'find_spec', lambda name: None)
    assert main(ask) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith('compared with all 30 images; an index is faster: pip install')
    assert said[1:] == exact
    assert main(['--out', 'emb', '--cluster', '2']) == 2
    assert '--cluster 2 takes up to 10 images, and emb has 30' in capsys.readouterr().err


def test_files_of_two_models_are_not_mixed(main, shards, capsys):
    assert main(['shards/000.tar', *MODEL, '--out', 'emb']) == 0
    assert main(['shards/001.tar', *MODEL, '--pool', 'avg', '--out', 'other']) == 0
    os.rename('other/001.parquet', 'emb/001.parquet')
    assert main(['--out', 'emb', '--cluster', '2']) == 2
    assert 'emb/000.parquet and 001.parquet do not go together' in capsys.readouterr().err
