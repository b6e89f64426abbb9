"""Going over many images."""

import numpy as np
import pytest
from PIL import Image

from vit_backbones.images import ImageWalk


@pytest.fixture
def write(tmp_path):
    def write(name):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        if 'broken' in name:
            path.write_bytes(b'no image')
        else:
            Image.new('RGB', (3, 2)).save(path)
        return path

    return write


def test_names_are_below_the_shared_folder_and_differ(write):
    walk = ImageWalk([write('x/a/1.png'), write('x/a/1.jpg'), write('x/b/1.png')], 'going')
    assert [item.name for item in walk] == ['a/1.png', 'a/1.jpg', 'b/1']
    assert [item.file_name for item in walk] == ['a/1.png', 'a/1.jpg', 'b/1.png']


def test_unreadable_images_are_skipped_and_listed(write, tmp_path):
    walk = ImageWalk([write('broken.png'), write('1.png')], 'going')
    for _ in range(2):  # they count once
        assert [item.pixels.shape for item in walk] == [(2, 3, 3)]
    assert walk.close(tmp_path / 'out') == f' · 1 unreadable, see {tmp_path}/out/unreadable.txt'
    assert 'broken.png: no image' in (tmp_path / 'out/unreadable.txt').read_text()
    whole = ImageWalk([tmp_path / '1.png'], 'going')
    assert np.array_equal(next(iter(whole)).pixels, np.zeros((2, 3, 3)))
    assert whole.close(tmp_path / 'out') == ''
    assert not (tmp_path / 'out/unreadable.txt').exists()


def test_not_one_readable_image_is_an_error(write, tmp_path):
    walk = ImageWalk([write('broken.png')], 'going')
    assert list(walk) == []
    with pytest.raises(ValueError, match=r'none of 1 images could be read: .*broken\.png'):
        walk.close(tmp_path)
