"""Pictures of a backbone's view of images: PCA of its features, and its attention."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image
from torch import Tensor

from vit_backbones.errors import require
from vit_backbones.features.attention_maps import attention_maps
from vit_backbones.features.extractor import Extractor
from vit_backbones.images import ImageWalk, as_picture, resized
from vit_backbones.models.chosen import Loaded
from vit_backbones.pictures.canvas import Panel, draw_panels, enlarge

Picture = tuple[str, Image.Image]
_LONGER_SIDE = 512  # of images unless asked for otherwise
_JOINT_PATCHES = 50_000  # of all images together, to fit their colours
_MOST_HEADS = 6  # drawn unless asked for
_BRIGHTEST = 98  # percentile: the few patches in which a ViT parks attention would dim all else
_PERCENTILES = (1, 99)  # darkest and brightest colour; a few odd patches do not wash out the rest


def viewer(
    loaded: Loaded, size: Sequence[int] | None = None, device: torch.device | str = 'cpu'
) -> Extractor:
    """Make the engine for these pictures, of a backbone that gives feature maps.

    `size` is as for `resizing`; `None` for a longer side of 512, or the size of the model.
    """
    return Extractor(loaded, size=size, longest=_LONGER_SIDE, joined=False, device=device)


def draw_pca(extractor: Extractor, walk: ImageWalk, *, joint: bool = False) -> Iterator[Picture]:
    """Draw the first principal components of patch features as red, green and blue.

    Gives name and picture of each image: the image, then a panel per layer. By default
    colours are fitted to each image and layer; `joint` fits those of a layer to all images, so that
    they mean the same in all.
    """
    backbone = extractor.loaded.backbone
    fitted = _fit_jointly(extractor, walk) if joint else None
    for _, _, name, pixels in walk:
        shown, maps = _features(extractor, pixels)
        colors = fitted or [fit_colors(each.reshape(-1, each.shape[-1])) for each in maps]
        row: list[Panel] = [('image', as_picture(shown))]
        for color, each, stride, layer in zip(
            colors, maps, backbone.strides, extractor.layers, strict=True
        ):
            row.append((f'layer {layer}', enlarge(color(each), stride, shown.shape[:2])))
        yield name, draw_panels([row])


def draw_attention(
    extractor: Extractor, walk: ImageWalk, heads: Sequence[int] | None = None
) -> Iterator[Picture]:
    """Draw the attention of the CLS token, or of the mean patch where there is none.

    Gives name and picture of each image: a row per layer with the image, `heads` (up to six by
    default) and the mean of all heads. The brightest colour is each panel's own 98th percentile.

    Raises:
        ValueError: For a head that does not exist, and as `attention_maps` does.
    """
    backbone = extractor.loaded.backbone
    for _, _, name, pixels in walk:
        shown = _shown(extractor, pixels)
        maps = attention_maps(backbone, extractor.pixels([shown]))
        rows = [
            [('image', as_picture(shown)), *_heads(extractor, layer, weights[0], heads, shown)]
            for layer, weights in zip(backbone.out_indices, maps, strict=True)
        ]
        yield name, draw_panels(rows)


def _shown(extractor: Extractor, pixels: np.ndarray) -> np.ndarray:
    """Resize an image for the model, (H, W, C)."""
    return resized(pixels, extractor.resize(pixels.shape[:2]))


def _features(extractor: Extractor, pixels: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The image as the model takes it, and (h, w, C) of each layer."""
    shown = _shown(extractor, pixels)
    return shown, [each.transpose(1, 2, 0) for each in extractor.run([shown])[0]]


def _heads(
    extractor: Extractor,
    layer: int,
    weights: Tensor,
    heads: Sequence[int] | None,
    shown: np.ndarray,
) -> Iterator[Panel]:
    """Panels of a layer's heads, (heads, h, w), and of their mean."""
    count, backbone = len(weights), extractor.loaded.backbone
    wanted = range(min(count, _MOST_HEADS)) if heads is None else heads
    if outside := [head for head in wanted if not 0 <= head < count]:
        raise ValueError(f'heads={outside[0]}: layer {layer} has the heads 0 to {count - 1}')
    stride = backbone.layer_strides[layer]
    titles = [f'layer {layer}, head {head}' for head in wanted]
    maps = [*(weights[head] for head in wanted), weights.mean(0)]
    for title, each in zip([*titles, f'layer {layer}, mean of {count}'], maps, strict=True):
        values = each.float().cpu().numpy()
        shares = values / max(np.percentile(values, _BRIGHTEST), 1e-12)
        colors = (255 * colormaps['inferno'](shares.clip(0, 1))[..., :3]).astype(np.uint8)
        yield title, enlarge(colors, stride, shown.shape[:2])


class Colors(NamedTuple):
    """Features as colours, by principal components: alike patches get alike colours.

    Attributes:
        mean: (C,) of the features.
        components: (3, C), those for red, green and blue, of unit length; the largest entry of
            each is positive, so that colours are the same each time.
        low: (3,) component values that become 0.
        high: (3,) component values that become 255.
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
    """Fit the first three principal components to (N, C) features of patches."""
    pca = require('sklearn.decomposition', 'PCA', 'scikit-learn').PCA(
        3, svd_solver='covariance_eigh'
    )
    # so that one patch or two have components, too
    features = np.resize(features, (max(4, len(features)), features.shape[1])).astype(np.float64)
    with np.errstate(invalid='ignore'):  # shares of the variance, where there is none
        pca.fit(features)
    low, high = np.percentile(pca.transform(features), _PERCENTILES, axis=0)
    return Colors(pca.mean_, pca.components_, low, high)


def _fit_jointly(extractor: Extractor, walk: ImageWalk) -> list[Colors]:
    """Colours for each layer, of patches spread evenly over all images."""
    most = max(16, _JOINT_PATCHES // len(walk))
    samples: list[list[np.ndarray]] = [[] for _ in extractor.layers]
    for _, _, _, pixels in walk:
        for sample, each in zip(samples, _features(extractor, pixels)[1], strict=True):
            patches = each.reshape(-1, each.shape[-1])
            sample.append(patches[:: -(-len(patches) // most)])
    return [fit_colors(np.concatenate(sample)) for sample in samples if sample]
