"""Principal components of features as colours: alike patches get alike colours."""

from typing import NamedTuple

import numpy as np

_PERCENTILES = (1, 99)  # darkest and brightest; a few odd patches do not wash out the rest


class Colors(NamedTuple):
    """From features to colours.

    Attributes:
        mean: (C,) of the features.
        components: (3, C), those for red, green and blue, of unit length, their largest entry
            positive, so that colours are the same each time.
        low: (3,) component values that become 0.
        high: (3,) those that become 255.
    """

    mean: np.ndarray
    components: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(..., C) features to (..., 3) uint8 RGB; grey where nothing differs."""
        values = (features - self.mean) @ self.components.T
        span = self.high - self.low
        shares = np.where(span > 1e-6, (values - self.low) / np.maximum(span, 1e-6), 0.5)
        return (255 * shares.clip(0, 1)).round().astype(np.uint8)


def fit_colors(features: np.ndarray) -> Colors:
    """Fit the first three principal components.

    Args:
        features: (N, C) of patches.

    Raises:
        ImportError: Without scikit-learn.
    """
    try:
        from sklearn.decomposition import PCA
    except ImportError:
        raise ImportError('PCA needs scikit-learn: pip install vit_backbones[tools]') from None
    # so that one patch or two have components, too
    features = np.resize(features, (max(4, len(features)), features.shape[1])).astype(np.float64)
    with np.errstate(invalid='ignore'):  # shares of the variance, where there is none
        pca = PCA(3, svd_solver='covariance_eigh').fit(features)
    low, high = np.percentile(pca.transform(features), _PERCENTILES, axis=0)
    return Colors(pca.mean_, pca.components_, low, high)
