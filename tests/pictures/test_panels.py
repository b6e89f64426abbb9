"""Panels in rows."""

import numpy as np

from vit_backbones.pictures.panels import draw_panels, enlarge


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
