import os

import pytest

from vit_backbones.files import check_writable


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
