"""Confusion matrices as pictures."""

import numpy as np

from vit_backbones.pictures.matrix import draw_confusion


def test_draw__shares_of_rows_and_no_empty_background():
    matrix = np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    axes = draw_confusion(matrix, ['cat', 'dog'], 'title').axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[75, 25], [0, 100]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ['cat (4)', 'dog (2)']
    matrix[2, 1] = 1
    axes = draw_confusion(matrix, ['cat', 'dog'], 'title').axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ['cat', 'dog', 'none']
