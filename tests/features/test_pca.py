"""Principal components as colours."""

import numpy as np
import pytest

from vit_backbones.features.pca import fit_colors


@pytest.fixture
def features():
    scales = np.array([5.0, 3.0, 2.0, 0.1, 0.1, 0.1])
    return np.random.default_rng(0).normal(size=(200, 6)) * scales + 7


def test_colors_are_those_of_the_singular_value_decomposition(features):
    values = (features - features.mean(0)) @ np.linalg.svd(features - features.mean(0))[2][:3].T
    low, high = np.percentile(values, (1, 99), axis=0)
    expected = 255 * ((values - low) / (high - low)).clip(0, 1)
    colors = fit_colors(features)(features).astype(float)
    same = np.minimum(abs(colors - expected), abs(255 - colors - expected))  # up to the sign
    assert same.max() <= 1


def test_signs_do_not_depend_on_the_order_of_patches(features):
    turned = fit_colors(features[::-1]).components
    np.testing.assert_allclose(fit_colors(features).components, turned, atol=1e-8)


def test_equal_patches_are_grey():
    assert (fit_colors(np.ones((1, 8)))(np.ones((2, 3, 8))) == 128).all()
