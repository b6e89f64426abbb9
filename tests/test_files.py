"""Files are written whole."""

import os

import pytest

from vit_backbones.files import write_whole


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
