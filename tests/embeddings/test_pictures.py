"""Contact sheets and scatter pictures, by their pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from vit_backbones.embeddings.scatter import draw_scatter
from vit_backbones.embeddings.sheet import Tile, draw_sheet, thumbnail


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert('RGB'))


def has(picture, color, at_least):
    """Whether so many pixels have this colour."""
    return (picture == np.uint8(color)).all(axis=-1).sum() >= at_least


@pytest.mark.parametrize(
    ('size', 'expected'),
    [((30, 20), (60, 40)), ((20, 30), (40, 60)), ((3000, 50), (60, 1)), ((1, 1), (60, 60))],
)
def test_thumbnails_keep_the_shape(size, expected, tmp_path):
    Image.new('RGB', size).save(tmp_path / 'x.png')
    assert thumbnail(tmp_path / 'x.png', 60).size == expected


def test_a_sheet_shows_each_image_whole(colored_images):
    rows = [('one', [Tile(f'images/{i}.png') for i in range(3)]), ('', [Tile('images/3.png')])]
    picture = pixels(draw_sheet(rows))
    for color in colored_images[:4]:
        assert has(picture, color, 160 * 107)
    assert not has(picture, colored_images[4], 1)
    assert picture.shape[1] == 8 + 3 * 168


def test_a_missing_image_is_a_grey_tile_with_its_name(colored_images):
    grey = (0xC8, 0xC8, 0xC8)
    named = pixels(draw_sheet([('', [Tile('images/0.png'), Tile('images/none.png')])]))
    assert has(named[:, 176:], grey, 160 * 100)
    other = pixels(draw_sheet([('', [Tile('images/0.png'), Tile('images/another.png')])]))
    assert (named[-30:, 176:] != other[-30:, 176:]).any()


def test_long_names_stay_under_their_image(colored_images):
    tiles = [Tile('images/0.png'), Tile(f'{"long" * 50}.png'), Tile('images/0.png')]
    picture = pixels(draw_sheet([('', tiles)]))
    text = slice(picture.shape[0] - 24, None)
    assert (picture[text, 176:336] != 255).any()
    assert (picture[text, 336:344] == 255).all()


def test_a_framed_image_has_a_frame_and_another_none(colored_images):
    red = (0xD6, 0x27, 0x28)
    assert has(pixels(draw_sheet([('', [Tile('images/0.png', frame=True)])])), red, 1500)
    assert not has(pixels(draw_sheet([('', [Tile('images/0.png')])])), red, 1)


def test_images_stand_where_their_points_are(colored_images):
    points = np.array([[0.0, 0], [10, 0], [0, 10], [10, 10]])
    picture = pixels(draw_scatter(points, [f'images/{i}.png' for i in range(4)]))
    assert picture.shape == (900, 1200, 3)
    halves = {0: (1, 0), 1: (1, 1), 2: (0, 0), 3: (0, 1)}  # y goes up
    for i, (row, column) in halves.items():
        part = picture[450 * row : 450 * (row + 1), 600 * column : 600 * (column + 1)]
        assert has(part, colored_images[i], 60 * 40)


def test_no_image_covers_another(colored_images):
    points = np.random.default_rng(0).uniform(size=(12, 2)) * (0.1, 0.1)
    points[0] = 1
    picture = pixels(draw_scatter(points, [f'images/{i}.png' for i in range(12)]))
    codes, counts = np.unique(picture @ (65536, 256, 1), return_counts=True)
    sizes = dict(zip(codes.tolist(), counts.tolist(), strict=True))
    shown = [sizes.get(np.dot(color, (65536, 256, 1)), 0) for color in colored_images]
    assert shown[0] == 60 * 40
    assert 1 < shown.count(60 * 40) < 12
    assert set(shown) == {0, 60 * 40}


def test_groups_have_their_colours():
    points = np.array([[0, 0], [0, 5], [0, 10], [10, 0]])
    picture = pixels(draw_scatter(points, ['none.png'] * 4, ['a$b$', '$x_', None, 'a$b$']))
    left = picture[:, :600]  # (the legend is on the right)
    for color in ((0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E), (0x9A, 0x9A, 0x9A)):
        assert has(left, color, 20)
