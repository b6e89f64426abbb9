"""Files are written whole, and places for them tried first."""

import os

import pytest

from vit_backbones.files import check_writable, write_whole


def test_an_old_file_is_replaced_and_no_draft_stays(tmp_path):
    path = write_whole(tmp_path / 'new' / 'a.txt', b'old')
    assert write_whole(path, b'new').read_bytes() == b'new'
    assert os.listdir(path.parent) == ['a.txt']


def test_a_device_is_written_to_and_not_replaced(tmp_path):
    (tmp_path / 'a').symlink_to('/dev/null')
    write_whole(tmp_path / 'a', b'nothing')
    assert (tmp_path / 'a').is_symlink()
    (tmp_path / 'b').symlink_to('/dev/full')
    with pytest.raises(OSError, match='No space left') as error:
        write_whole(tmp_path / 'b', b'nothing')
    assert error.value.filename == str(tmp_path / 'b')
    assert sorted(os.listdir(tmp_path)) == ['a', 'b']


def test_a_place_that_is_not_there_yet_is_left_so(tmp_path):
    check_writable(tmp_path / 'a/b.json')
    check_writable(tmp_path / 'a/b', folder=True)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ('name', 'folder', 'reason'),
    [
        ('.', False, 'it is no file'),
        ('file', True, 'it is no folder'),
        ('file/a/b.png', False, 'Not a directory: .*file'),
        ('file/a', True, 'Not a directory: .*file'),
        ('/dev/full', False, 'it is no file'),
        ('/proc/a.png', False, 'No such file or directory: /proc'),
    ],
)
def test_where_nothing_can_be_written(name, folder, reason, tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(ValueError, match=f'cannot be written: {reason}$'):
        check_writable(tmp_path / name, folder=folder)
