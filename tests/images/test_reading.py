"""Reading users' images: the same pixels as OpenCV, and one line for what cannot be read."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from vit_backbones.images import UnreadableImageError, find_images, image_size, read_image


@pytest.fixture
def draw(tmp_path):
    """Write a random image of a mode, with an orientation; gives its path."""

    def write(name, mode, size=(30, 20), orientation=1):
        width, height = size
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 4), dtype=np.uint8)
        if mode == 'I;16':
            image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
        elif mode == 'RGBA':
            image = Image.fromarray(pixels)
        else:
            image = Image.fromarray(pixels[..., :3]).convert(mode)
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(tmp_path / name, exif=exif)
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    ('name', 'mode', 'orientation'),
    [
        ('a.png', 'RGB', 1),
        ('a.png', 'L', 1),
        ('a.png', '1', 1),
        ('a.png', 'P', 1),
        ('a.png', 'RGBA', 1),
        ('a.png', 'LA', 1),
        ('a.png', 'I;16', 1),
        ('a.tif', 'I;16', 1),
        ('a.jpg', 'RGB', 1),
        *(('a.jpg', 'RGB', turned) for turned in range(2, 9)),
    ],
)
def test_pixels_are_those_of_opencv(name, mode, orientation, draw):
    path = draw(name, mode, orientation=orientation)
    expected = cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]
    image = read_image(path)
    assert image.dtype == np.uint8
    assert np.array_equal(image, expected)
    assert image_size(path) == image.shape[:2]


def test_sixteen_bits_of_colour_keep_their_high_byte(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / 'a.png'), pixels)
    assert np.array_equal(read_image(tmp_path / 'a.png')[..., ::-1], pixels >> 8)


@pytest.mark.parametrize('size', [(1, 1), (12000, 200)])
def test_extreme_sizes(size, draw):
    assert read_image(draw('a.png', 'L', size)).shape == (*size[::-1], 3)


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (b'', 'no image, or a damaged one'),
        (b'not an image', 'no image, or a damaged one'),
        (None, 'it does not exist'),
        ('truncated', 'truncated'),
    ],
)
def test_what_cannot_be_read_is_one_line_with_the_path(content, reason, draw, tmp_path):
    path = tmp_path / 'bad.jpg'
    if content == 'truncated':
        path.write_bytes(draw('whole.jpg', 'RGB', (300, 200)).read_bytes()[:-9000])
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=re.escape(f'{path}: ') + f'.*{reason}') as error:
        read_image(path)
    assert '\n' not in str(error.value)


def test_float_images_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / 'a.tif')
    with pytest.raises(UnreadableImageError, match='not on 0-65535'):
        read_image(tmp_path / 'a.tif')


def test_images_of_folder_pattern_list_and_coco(draw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ('images/deep', '.hidden'):
        Path(folder).mkdir(parents=True)
    for name in ('images/b.png', 'images/a.JPG', 'images/deep/c.png', '.hidden/d.png'):
        draw(name, 'L') if name.endswith('png') else draw('x.jpg', 'L').rename(name)
    Path('images/notes.md').touch()
    Path('list.txt').write_text('images/b.png\n\nimages/a.JPG\n')
    Path('coco.json').write_text(json.dumps({'images': [{'file_name': 'b.png'}]}))
    names = ['images/a.JPG', 'images/b.png', 'images/deep/c.png']
    assert [str(p) for p in find_images(['images'])] == names
    assert [str(p) for p in find_images(['images/*.png'])] == names[1:2]
    assert [str(p) for p in find_images(['images/**/*.png'])] == names[1:]
    assert [str(p) for p in find_images(['list.txt', 'images'])] == [names[1], names[0], names[2]]
    assert [str(p) for p in find_images(['coco.json'])] == names[1:2]


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ('nowhere', 'nowhere: no such image, folder, list or pattern'),
        ('*.webp', r'\*.webp: no such image'),
        ('empty', 'empty: no images in this folder'),
        ('empty.txt', 'an empty list'),
        ('bad.json', 'no COCO file'),
    ],
)
def test_inputs_without_images_are_named(given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('empty').mkdir()
    Path('empty.txt').touch()
    Path('bad.json').write_text('[]')
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        find_images([given])
