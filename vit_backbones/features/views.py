"""Pictures of what a backbone makes of images: PCA of its features, and where it looks."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image
from torch import Tensor

from vit_backbones.features.attention_maps import attention_maps, reader
from vit_backbones.features.pca import Colors, fit_colors
from vit_backbones.images import ImageWalk, Resize, resized, resizing, within
from vit_backbones.models.chosen import Loaded
from vit_backbones.pictures.panels import Panel, draw_panels, enlarge

Picture = tuple[str, Image.Image]
_LONGER_SIDE = 512  # of images unless asked for otherwise
_JOINT_PATCHES = 50_000  # of all images together, to fit their colours
_MOST_HEADS = 6  # drawn unless asked for
_BRIGHTEST = 98  # percentile: the few patches in which a ViT parks attention would dim all else


def draw_pca(
    loaded: Loaded, walk: ImageWalk, size: Sequence[int] | None = None, *, joint: bool = False
) -> Iterator[Picture]:
    """Draw the first principal components of patch features as red, green and blue.

    Args:
        loaded: Its outputs are feature maps.
        walk: The images.
        size: As for `resizing`; `None` for a longer side of 512, or the size of the model.
        joint: Fit colours to all images together, so that they mean the same in all; else to each
            image and layer alone.

    Yields:
        Name and picture of each image: itself, then a panel a layer.
    """
    fitted = _fit_jointly(loaded, walk, size) if joint else None
    for _, _, name, pixels in walk:
        shown, maps = _features(loaded, pixels, size)
        colors = fitted or [fit_colors(each.reshape(-1, each.shape[-1])) for each in maps]
        row: list[Panel] = [('image', shown)]
        for color, each, stride, layer in zip(
            colors, maps, loaded.backbone.strides, loaded.backbone.out_indices, strict=True
        ):
            row.append((f'layer {layer}', enlarge(color(each), stride, shown.shape[:2])))
        yield name, draw_panels([row])


def draw_attention(
    loaded: Loaded,
    walk: ImageWalk,
    size: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> Iterator[Picture]:
    """Draw where the CLS token looks, or the mean patch where there is none.

    Args:
        loaded: A plain ViT; a row for each of its `out_indices`.
        walk: The images.
        size: As for `resizing`; `None` for a longer side of 512, or the size of the model.
        heads: Of each layer; by default all of them, up to six.

    Yields:
        Name and picture of each image: itself, its heads, and the mean of all heads. The brightest
        colour is each panel's own 98th percentile.

    Raises:
        ValueError: For a head that there is not, and as `attention_maps` does.
    """
    for _, _, name, pixels in walk:
        shown, images = _as_input(loaded, pixels, size)
        rows = []
        maps = attention_maps(loaded.backbone, images)
        for layer, weights in zip(loaded.backbone.out_indices, maps, strict=True):
            rows.append([('image', shown), *_heads(loaded, layer, weights[0], heads, shown)])
        yield name, draw_panels(rows)


def _resize(loaded: Loaded, size: Sequence[int] | None) -> Resize:
    """How images change, which are made small unless the model or a user says how large."""
    fixed = loaded.backbone.fixed_size
    return within(_LONGER_SIDE) if size is None and fixed is None else resizing(size, fixed)


def _as_input(loaded: Loaded, pixels: np.ndarray, size: Sequence[int] | None) -> tuple:
    """The image at its size for the model, (H, W, 3), and normalised, (1, 3, H, W)."""
    shown = resized(pixels, _resize(loaded, size)(pixels.shape[:2]))
    device = next(loaded.backbone.parameters()).device
    return shown, loaded.normalised(shown[None]).to(device)


@torch.no_grad()
def _features(
    loaded: Loaded, pixels: np.ndarray, size: Sequence[int] | None
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The image as the model takes it, and (h, w, C) of each layer."""
    shown, images = _as_input(loaded, pixels, size)
    maps = loaded.backbone(images)  # (1, C, h, w)
    return shown, [each[0].permute(1, 2, 0).float().cpu().numpy() for each in maps]


def _fit_jointly(loaded: Loaded, walk: ImageWalk, size: Sequence[int] | None) -> list[Colors]:
    """Colours for each layer, of patches spread evenly over all images."""
    most = max(16, _JOINT_PATCHES // len(walk))
    samples: list[list[np.ndarray]] = [[] for _ in loaded.backbone.out_indices]
    for _, _, _, pixels in walk:
        for sample, each in zip(samples, _features(loaded, pixels, size)[1], strict=True):
            patches = each.reshape(-1, each.shape[-1])
            sample.append(patches[:: -(-len(patches) // most)])
    return [fit_colors(np.concatenate(sample)) for sample in samples if sample]


def _heads(
    loaded: Loaded, layer: int, weights: Tensor, heads: Sequence[int] | None, shown: np.ndarray
) -> Iterator[Panel]:
    """Panels of a layer's heads, (heads, h, w), and of their mean."""
    count = len(weights)
    wanted = range(min(count, _MOST_HEADS)) if heads is None else heads
    if outside := [head for head in wanted if not 0 <= head < count]:
        raise ValueError(f'--heads {outside[0]}: layer {layer} has the heads 0 to {count - 1}')
    stride = loaded.backbone.layer_strides[layer]
    titles = [f'layer {layer}, head {head}' for head in wanted]
    maps = [*(weights[head] for head in wanted), weights.mean(0)]
    for title, each in zip([*titles, f'layer {layer}, mean of {count}'], maps, strict=True):
        values = each.float().cpu().numpy()
        shares = values / max(np.percentile(values, _BRIGHTEST), 1e-12)
        colors = (255 * colormaps['inferno'](shares.clip(0, 1))[..., :3]).astype(np.uint8)
        yield title, enlarge(colors, stride, shown.shape[:2])


def reader_of(loaded: Loaded) -> str:
    """Whose attention `draw_attention` shows, in words."""
    return reader(loaded.backbone)
