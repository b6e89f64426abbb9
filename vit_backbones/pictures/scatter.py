"""A picture of all embeddings: points in the plane, images at some of them."""

import contextlib
from collections import Counter
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from vit_backbones.images import UnreadableImageError, read_image
from vit_backbones.pictures.canvas import png, thumbnail

_SEED = 0
_DPI = 100
_SIDE = 60  # of an image, pixels
_RIM = 2
_APART = _SIDE + 2 * _RIM + 1  # of the centres of two images
_MOST_IMAGES = 150
_REST = '#9a9a9a'
# tab20, strong colours first, without its greys
_COLORS = [matplotlib.colormaps['tab20'](i) for i in (*range(0, 20, 2), *range(1, 20, 2))]
_COLORS = [color for i, color in enumerate(_COLORS) if i % 10 != 7]


def draw_scatter(
    points: np.ndarray,
    paths: Sequence[str],
    groups: Sequence[str | None] | None = None,
    *,
    title: str = '',
) -> bytes:
    """Draw points, and images at some of them, none upon another.

    Args:
        points: (N, 2).
        paths: Of the N images; those that cannot be read stay points.
        groups: Name of each image's group, which gives its colour; `None` for an image without.
        title: Above the picture.

    Returns:
        A PNG of 1200 x 900 pixels.
    """
    figure = Figure(figsize=(12, 9), dpi=_DPI, layout='constrained')
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    colors = np.array([_COLORS[0]] * len(points))
    if groups is not None:
        colors = _color_by_group(axes, groups)
    axes.scatter(*points.T, s=np.clip(20000 / len(points), 4, 36), color=colors, linewidths=0)
    axes.set(title=title, xticks=[], yticks=[])
    axes.margins(0.06)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert('RGB')
    places = axes.transData.transform(points) * (1, -1) + (0, picture.height)
    _add_images(picture, places, paths, colors)
    return png(picture)


def _color_by_group(axes: Axes, groups: Sequence[str | None]) -> np.ndarray:
    """(N, 4) RGBA, with a legend; the largest groups have a colour each."""
    counts = Counter(name for name in groups if name is not None)
    by_size = sorted(counts, key=lambda name: (-counts[name], len(name), name))
    colored = dict(zip(by_size, _COLORS, strict=False))
    legend = {f'{name:.24} ({counts[name]})': color for name, color in colored.items()}
    rest = {
        'other': sum(name is not None and name not in colored for name in groups),
        'no label': sum(name is None for name in groups),
    }
    legend |= {f'{name} ({count})': to_rgba(_REST) for name, count in rest.items() if count}
    for name, color in legend.items():
        axes.scatter([], [], color=color, label=name)
    written = axes.figure.legend(loc='outside right upper', frameon=False)
    for text in written.get_texts():
        text.set_parse_math(False)  # a $ in a name is a $
    return np.array([colored.get(name, to_rgba(_REST)) for name in groups])


def _add_images(
    picture: Image.Image, places: np.ndarray, paths: Sequence[str], colors: np.ndarray
) -> None:
    """Put images at (N, 2) places, in an arbitrary order, where there is room."""
    taken = np.empty((0, 2))
    for i in np.random.default_rng(_SEED).permutation(len(places)):
        if len(taken) == _MOST_IMAGES:
            return
        if (np.abs(taken - places[i]).max(axis=1) < _APART).any():
            continue
        with contextlib.suppress(UnreadableImageError):
            small = thumbnail(Image.fromarray(read_image(paths[i])), _SIDE)
            framed = ImageOps.expand(small, _RIM, to_hex(colors[i]))
            picture.paste(
                framed, tuple((places[i] - np.array(framed.size) / 2).round().astype(int))
            )
            taken = np.vstack([taken, places[i]])
