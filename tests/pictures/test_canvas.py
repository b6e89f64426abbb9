"""Sheets of pictures and panels in rows, by their pixels."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from vit_backbones.embeddings.tiles import tile_of
from vit_backbones.pictures.canvas import (
    Tile,
    draw_panels,
    draw_sheet,
    enlarge,
    in_rows,
    png,
    thumbnail,
)


def has(picture, color, at_least):
    """Whether so many pixels have this colour."""
    return (picture == np.uint8(color)).all(axis=-1).sum() >= at_least


@pytest.mark.parametrize(
    ('size', 'expected'),
    [((30, 20), (60, 40)), ((20, 30), (40, 60)), ((3000, 50), (60, 1)), ((1, 1), (60, 60))],
)
def test_thumbnails_keep_the_shape(size, expected):
    assert thumbnail(Image.new('RGB', size), 60).size == expected


def test_a_sheet_shows_each_image_whole(colored_images):
    rows = [
        ('one', [tile_of(f'images/{i}.png') for i in range(3)]),
        ('', [tile_of('images/3.png')]),
    ]
    picture = np.asarray(draw_sheet(rows))
    for color in colored_images[:4]:
        assert has(picture, color, 160 * 107)
    assert not has(picture, colored_images[4], 1)
    assert picture.shape[1] == 8 + 3 * 168


def test_a_missing_image_is_a_grey_tile_with_its_name(colored_images):
    grey = (0xC8, 0xC8, 0xC8)
    named = np.asarray(draw_sheet([('', [tile_of('images/0.png'), tile_of('images/none.png')])]))
    assert has(named[:, 176:], grey, 160 * 100)
    other = np.asarray(draw_sheet([('', [tile_of('images/0.png'), tile_of('images/another.png')])]))
    assert (named[-30:, 176:] != other[-30:, 176:]).any()


def test_long_names_stay_under_their_image(colored_images):
    tiles = [tile_of('images/0.png'), tile_of(f'{"long" * 50}.png'), tile_of('images/0.png')]
    picture = np.asarray(draw_sheet([('', tiles)]))
    text = slice(picture.shape[0] - 24, None)
    assert (picture[text, 176:336] != 255).any()
    assert (picture[text, 336:344] == 255).all()


def test_a_framed_image_has_a_frame_and_another_none(colored_images):
    red = (0xD6, 0x27, 0x28)
    assert has(np.asarray(draw_sheet([('', [tile_of('images/0.png', frame=True)])])), red, 1500)
    assert not has(np.asarray(draw_sheet([('', [tile_of('images/0.png')])])), red, 1)


def test_rows_are_as_wide_as_a_sheet_may_be():
    tiles = [Tile(Image.new('RGB', (300, 240), 'red'), str(i)) for i in range(9)]
    rows = in_rows([*tiles, Tile(Image.new('RGB', (2000, 9)), 'wide')], 1300)
    assert [len(row) for _, row in rows] == [4, 4, 1, 1]
    assert draw_sheet(rows[:3]).width == 8 + 4 * 308
    assert has(np.asarray(draw_sheet(rows[:3])), (255, 0, 0), 9 * 300 * 240)


def test_titles_are_whole():
    tile = Tile(Image.new('RGB', (160, 9)), '')
    assert draw_sheet([('a title that is wider than the only tile', [tile])]).width > 250


def panel(height, width, value=7):
    return 'title', np.full((height, width, 3), value, np.uint8)


def test_panels_stand_beside_each_other_and_wide_ones_below():
    beside = draw_panels([[panel(100, 200), panel(100, 200)]])
    below = draw_panels([[panel(40, 200), panel(40, 200)]])
    assert beside.width > 400 > 200 > beside.height
    assert below.width < 400
    assert (np.asarray(below)[:, 3:203] == 7).all((1, 2)).sum() == 80


def test_large_panels_are_shrunk():
    assert draw_panels([[panel(900, 1000)]], side=500).size == (506, 478)


def test_patches_become_squares_and_padding_is_cut_off():
    cells = np.arange(6, dtype=np.uint8).reshape(2, 3, 1).repeat(3, axis=2)
    large = enlarge(cells, (4, 2), (7, 5))
    assert large.shape == (7, 5, 3)
    assert large[:, :, 0].tolist() == [[0, 0, 1, 1, 2]] * 4 + [[3, 3, 4, 4, 5]] * 3


def test_png__of_pictures_arrays_and_figures():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    for picture in (pixels, Image.fromarray(pixels)):
        np.testing.assert_array_equal(Image.open(io.BytesIO(png(picture))), pixels)
    assert png(Figure()).startswith(b'\x89PNG')
