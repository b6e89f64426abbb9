"""Scatter pictures, by their pixels."""

import io

import numpy as np
from PIL import Image

from vit_backbones.embeddings.tiles import readable
from vit_backbones.pictures.scatter import draw_scatter


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert('RGB'))


def read(i):
    return readable(f'images/{i}.png')


def has(picture, color, at_least):
    """Whether so many pixels have this colour."""
    return (picture == np.uint8(color)).all(axis=-1).sum() >= at_least


def test_images_stand_where_their_points_are(colored_images):
    points = np.array([[0.0, 0], [10, 0], [0, 10], [10, 10]])
    picture = pixels(draw_scatter(points, read))
    assert picture.shape == (900, 1200, 3)
    halves = {0: (1, 0), 1: (1, 1), 2: (0, 0), 3: (0, 1)}  # y goes up
    for i, (row, column) in halves.items():
        part = picture[450 * row : 450 * (row + 1), 600 * column : 600 * (column + 1)]
        assert has(part, colored_images[i], 60 * 40)


def test_no_image_covers_another(colored_images):
    points = np.random.default_rng(0).uniform(size=(12, 2)) * (0.1, 0.1)
    points[0] = 1
    picture = pixels(draw_scatter(points, read))
    codes, counts = np.unique(picture @ (65536, 256, 1), return_counts=True)
    sizes = dict(zip(codes.tolist(), counts.tolist(), strict=True))
    shown = [sizes.get(np.dot(color, (65536, 256, 1)), 0) for color in colored_images]
    assert shown[0] == 60 * 40
    assert 1 < shown.count(60 * 40) < 12
    assert set(shown) == {0, 60 * 40}


def test_groups_have_their_colours():
    points = np.array([[0, 0], [0, 5], [0, 10], [10, 0]])
    picture = pixels(draw_scatter(points, lambda i: None, ['a$b$', '$x_', None, 'a$b$']))
    left = picture[:, :600]  # (the legend is on the right)
    for color in ((0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E), (0x9A, 0x9A, 0x9A)):
        assert has(left, color, 20)
