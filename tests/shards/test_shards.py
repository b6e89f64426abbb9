"""Shards: which files are found, what they give, and what damaged and hostile ones get."""

import gzip
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vit_backbones.images import image_size, read_image
from vit_backbones.shards import image_tables, tars
from vit_backbones.shards.contents import HeldFile, ShardError
from vit_backbones.shards.found import find_shards, groups, held_at
from vit_backbones.shards.image_tables import table_samples
from vit_backbones.shards.tars import tar_samples


def png(number=0, size=(8, 6)):
    """A PNG of noise, (width, height)."""
    file = io.BytesIO()
    noise = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(noise).save(file, 'PNG')
    return file.getvalue()


def member(name, **fields):
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def write_tar(path, members, **options):
    """Write a tar of (name or TarInfo, content)."""
    with tarfile.open(path, 'w', **options) as tar:
        for info, content in members:
            info = info if isinstance(info, tarfile.TarInfo) else member(info, size=len(content))
            tar.addfile(info, io.BytesIO(content))
    return Path(path)


def images(number=3):
    return [(f'a/{i:04}.png', png(i)) for i in range(number)]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# What is in a tar


def test_images_come_in_order_by_key_among_other_members(here):
    (name, first), *others = images()
    folder = member('a', type=tarfile.DIRTYPE)
    path = write_tar(
        'a.tar',
        [
            (folder, b''),
            ('a/0000.json', b'{}'),
            (name, first),
            ('a/._0000.png', b'mac'),
            *others,
        ],
    )
    found = list(tar_samples(path))
    assert [key for key, _ in found] == ['a/0000', 'a/0001', 'a/0002']
    assert [image.getvalue() for _, image in found] == [content for _, content in images()]
    assert image_size(found[0].image) == (6, 8)
    with Image.open(io.BytesIO(first)) as image:
        assert np.array_equal(read_image(found[0].image), np.asarray(image))


def test_an_extension_chooses_among_the_images_of_a_key(here):
    path = write_tar('a.tar', [('1.jpg', png(0)), ('1.seg.png', png(1)), ('2.jpg', png(2))])
    first, second, third = tar_samples(path)
    assert second == ('1', '1.seg.png: its key stands for 1.jpg already')
    assert (first.key, third.key) == ('1', '2')
    ((key, image),) = tar_samples(path, 'seg.png')
    assert (key, image.getvalue()) == ('1', png(1))


def test_long_names_and_pax_headers(here):
    path = write_tar('a.tar', [(f'{"x" * 300}/é.png', png())], format=tarfile.PAX_FORMAT)
    assert [key for key, _ in tar_samples(path)] == [f'{"x" * 300}/é']


@pytest.mark.parametrize(
    ('info', 'reason'),
    [
        (member('1.png', type=tarfile.SYMTYPE, linkname='/etc/passwd'), 'a link, not followed'),
        (member('1.png', type=tarfile.LNKTYPE, linkname='0.png'), 'a link, not followed'),
        (member('1.png', type=tarfile.CHRTYPE), 'no plain file'),
        (member('1.png', type=tarfile.FIFOTYPE), 'no plain file'),
        (member('0.png', size=0), '0.png: its key stands for 0.png already'),
    ],
    ids=['symlink', 'hard link', 'device', 'pipe', 'again'],
)
def test_members_that_are_no_images_are_set_aside(info, reason, here):
    path = write_tar('a.tar', [('0.png', png()), (info, b''), ('2.png', png(2))])
    assert [sample.image for sample in tar_samples(path)][1] == reason
    assert len(list(tar_samples(path))) == 3


def test_an_absurd_size_is_not_read(here, monkeypatch):
    monkeypatch.setattr(tars, 'LARGEST', 1000)
    path = write_tar('a.tar', [('0.png', bytes(1001)), ('1.png', png())])
    (_, reason), (_, image) = tar_samples(path)
    assert reason == '1001 bytes are no image: the most is 1000'
    assert isinstance(image, HeldFile)


def damaged(content):
    """Damaged tar files, by name, of one with three images."""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        ends = [each.offset for each in tar.getmembers()]
    huge = member('x', type=tarfile.XHDTYPE, size=2**32).tobuf(tarfile.USTAR_FORMAT)
    claim = member('9.png', size=2**40).tobuf(tarfile.GNU_FORMAT)
    return {
        'empty': b'',
        'text': b'404 not found\n' * 200,
        'gzip': gzip.compress(content),
        'half': content[: ends[1] + 600],
        'between': content[: ends[2]],
        'garbled': content[: ends[1]] + b'x' * 512 + content[ends[1] + 512 :],
        'two': content + content,
        'header': huge + content,
        'claim': content[: ends[2]] + claim + bytes(1024),
    }


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('empty', r'no tar file, or a compressed or damaged one \(empty file\)'),
        ('text', r'no tar file, or a compressed or damaged one \(.*header\)'),
        ('gzip', r'no tar file, or a compressed or damaged one \(.*header\)'),
        ('half', 'it ends too early'),
        ('between', 'it ends too early'),
        ('garbled', r'damaged, or two tar files in one: more data behind byte \d+'),
        ('two', r'damaged, or two tar files in one: more data behind byte \d+'),
        ('header', 'damaged: a header of 4294967296 bytes'),
        ('claim', 'it ends too early'),
    ],
)
def test_a_damaged_tar_gets_one_line(name, message, here):
    path = write_tar('a.tar', images())
    path.write_bytes(damaged(path.read_bytes())[name])
    with pytest.raises(ShardError, match=f'^{message}$'):
        list(tar_samples(path))


def test_a_tar_without_images_names_what_it_holds(here):
    path = write_tar('a.tar', [('1.json', b'{}'), ('1.txt', b'a')])
    with pytest.raises(ShardError, match=r'^no images in it \(\.bmp, .*\); it holds \.json, \.txt'):
        list(tar_samples(path))
    with pytest.raises(ShardError, match=r'^no images in it \(\.png\); it holds \.json, \.txt'):
        list(tar_samples(path, 'png'))


# What is in a Parquet file


def write_table(path, column='image', number=5, **others):
    pa = pytest.importorskip('pyarrow')
    from pyarrow import parquet

    structs = [dict(bytes=png(i), path=f'{i}.png') for i in range(number)]
    columns = {column: pa.array(structs), 'label': pa.array(range(number))} | others
    parquet.write_table(pa.table(columns), path, row_group_size=2, write_page_checksum=True)
    return Path(path)


def test_rows_of_bytes_and_of_structs_are_images(here):
    structs = write_table('a.parquet')
    plain = write_table('b.parquet', jpg=[png(i) for i in range(5)])
    for found in (table_samples(structs), table_samples(plain, 'jpg')):
        pairs = [(key, image.getvalue()) for key, image in found]
        assert pairs == [(str(i), png(i)) for i in range(5)]


def test_rows_without_bytes_are_set_aside(here):
    rows = [None, dict(bytes=None, path='/etc/passwd'), dict(bytes=png(), path=None)]
    first, second, third = table_samples(write_table('a.parquet', number=3, image=rows))
    assert first.image == second.image == 'it has no bytes; paths are not followed'
    assert third.image.getvalue() == png()


def test_a_table_that_expands_too_far_is_not_read(here, monkeypatch):
    monkeypatch.setattr(image_tables, '_EXPANDED', 2**19)
    monkeypatch.setattr(image_tables, '_RATIO', 10)
    path = write_table('a.parquet', number=2, image=[bytes(2**20), bytes(2**20 + 1)])
    with pytest.raises(ShardError, match=r'^its row group 0 expands to 2097\d+ bytes$'):
        next(table_samples(path))


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda b: b'', 'no Parquet file, or a damaged one'),
        (lambda b: b'PAR1' * 99, 'no Parquet file, or a damaged one'),
        (lambda b: b[: len(b) // 2], 'no Parquet file, or a damaged one'),
        (lambda b: b[:300] + bytes(60) + b[360:], 'no Parquet file, or a damaged one'),
    ],
    ids=['empty', 'magic', 'half', 'row group'],
)
def test_a_damaged_table_gets_one_line(damage, message, here):
    path = write_table('a.parquet')
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ShardError, match=f'^{message}.*$') as caught:
        list(table_samples(path))
    assert '\n' not in str(caught.value)


def test_a_table_without_its_column_names_those_it_has(here):
    pa = pytest.importorskip('pyarrow')
    path = write_table('a.parquet', column='photo')
    message = (
        r"^no column 'image' of bytes, or of a struct with bytes; it has photo struct<.*>, label "
        r'int64 \(image_key=... names another one\)$'
    )
    with pytest.raises(ShardError, match=message):
        list(table_samples(path))
    with pytest.raises(ShardError, match=r"^no column 'label' of bytes"):
        list(table_samples(path, 'label'))
    with pytest.raises(ShardError, match=r'^no rows in it$'):
        list(table_samples(write_table('b.parquet', number=0, image=pa.array([], pa.binary()))))


# Which files


def test_patterns_folders_and_lists_are_found(here):
    os.makedirs('s/t')
    for name in ('s/08.tar', 's/09.tar', 's/10.tar', 's/t/x.parquet', 's/_index.parquet'):
        Path(name).touch()
    names = [['s/08.tar', 's/09.tar'], ['s/08.tar', 's/09.tar', 's/10.tar', 's/t/x.parquet']]
    Path('list.txt').write_text('s/10.tar\nphoto.png\n')
    assert [str(each.source) for each in find_shards(['s/{08..09}.tar'])] == names[0]
    assert [str(each.source) for each in find_shards(['s'])] == names[1]
    assert [str(each.source) for each in find_shards(['s/0*.tar', 's/08.tar'])] == names[0]
    assert [(e.name, str(e.source)) for e in find_shards(['list.txt'])] == [
        ('10', 's/10.tar'),
        ('images-00000', 'None'),
    ]


def test_embeddings_beside_images_are_passed_over(here):
    Path('photos/emb').mkdir(parents=True)
    for name in ('photos/a.png', 'photos/emb/x.parquet', 'photos/emb/_settings.json'):
        Path(name).touch()
    assert [each.paths for each in find_shards(['photos'])] == [[Path('photos/a.png')]]


def test_shards_of_one_name_get_two(here):
    for folder in 'ab':
        Path(folder).mkdir()
        Path(folder, '0.tar').touch()
    first, second = (each.name for each in find_shards(['a', 'b']))
    assert first.startswith('shard-')
    assert first.endswith('-0')
    assert first != second


def test_images_are_shards_in_groups(here, monkeypatch):
    monkeypatch.setattr('vit_backbones.shards.found._IMAGES', 2)
    found = groups([Path(f'{i}.png') for i in range(3)])
    assert [(each.name, len(each.paths)) for each in found] == [
        ('images-00000', 2),
        ('images-00001', 1),
    ]


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ('none.tar', 'none.tar: no such shard'),
        ('{000..002}.tar', '000.tar: no such shard'),
        ('{5..1}.tar', r'\{5..1\}.tar: it wants a range such as \{000..099\}, upwards'),
        ('{0..99999999999}.tar', 'it wants a range'),
        ('a.tar.gz', 'a.tar.gz: shards are read uncompressed: unpack it to a .tar file first'),
        ('both', r'both: 1 shard \(a.tar\) and 1 image \(b.png\): name one of the kinds, such as'),
        ('both/*', r'both/\*: 1 shard \(a.tar\) and 1 image \(b.png\)'),
        ('empty', 'empty: no images in this folder'),
        ('*.tar', r'\*.tar: no such image, folder, list or pattern'),
    ],
)
def test_inputs_that_are_none_get_one_line(given, message, here):
    Path('empty').mkdir()
    Path('both').mkdir()
    Path('both/a.tar').touch()
    Path('both/b.png').touch()
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        find_shards([given])


def test_an_image_is_found_again_by_shard_and_key(here):
    write_tar('a.tar', images())
    write_table('b.parquet')
    assert held_at('a.tar/a/0001').getvalue() == png(1)
    assert held_at('b.parquet/3').getvalue() == png(3)
    assert [held_at(name) for name in ('a.tar/none', 'b.parquet/9', 'c.tar/1', 'x.png')] == [
        None
    ] * 4
