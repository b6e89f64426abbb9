"""Draw points in the plane: embeddings with images at some of them, models by value and cost."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter
from matplotlib.transforms import Bbox
from PIL import Image, ImageOps

from vit_backbones.pictures.canvas import png, thumbnail, unformatted

Read = Callable[[int], np.ndarray | None]
Row = Mapping[str, Any]

_SEED = 0
_SIDE = 60  # of an image, pixels
_RIM = 2
_APART = _SIDE + 2 * _RIM + 1  # of the centres of two images
_MOST_IMAGES = 150
_REST = '#9a9a9a'
# tab20, strong colours first, without its greys
_COLORS = [matplotlib.colormaps['tab20'](i) for i in (*range(0, 20, 2), *range(1, 20, 2))]
_COLORS = [color for i, color in enumerate(_COLORS) if i % 10 != 7]

_AXES = {
    'images_per_second': ('images a second', 1),
    'parameters': ('million parameters', 1e6),
    'peak_memory_mib': ('peak memory, GiB', 1024),
}
_COLUMNS = 2  # panels in a row
_LEAST = 0.2  # of values on an axis, so that small differences look small
_LOGARITHMIC = 8  # the axis, where the largest is so many times the smallest
_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
_DISTANCES = (7, 14, 24, 36)  # of a label, in points


def draw_scatter(
    points: np.ndarray, read: Read, groups: Sequence[str | None] | None = None, *, title: str = ''
) -> bytes:
    """Draw points, and images at some of them that do not overlap: a PNG of 1200 x 900 pixels.

    Args:
        points: (N, 2).
        read: Gives the image (H, W, 3) of a point by its index, `None` to leave it a point.
        groups: Name of each point's group, which sets its colour; `None` without a group.
    """
    figure = Figure(figsize=(12, 9), dpi=100, layout='constrained')
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    colors = np.array([_COLORS[0]] * len(points))
    if groups is not None:
        colors = _color_by_group(axes, groups)
    axes.scatter(*points.T, s=np.clip(20000 / len(points), 4, 36), color=colors, linewidths=0)
    axes.set(title=unformatted(title), xticks=[], yticks=[])
    axes.margins(0.06)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert('RGB')
    places = axes.transData.transform(points) * (1, -1) + (0, picture.height)
    _add_images(picture, places, read, colors)
    return png(picture)


def _color_by_group(axes: Axes, groups: Sequence[str | None]) -> np.ndarray:
    """Add a legend; gives (N, 4) RGBA, with a colour for each of the largest groups."""
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
        axes.scatter([], [], color=color, label=unformatted(name))
    written = axes.figure.legend(loc='outside right upper', frameon=False)
    for text in written.get_texts():
        text.set_parse_math(False)  # a $ in a name is a $
    return np.array([colored.get(name, to_rgba(_REST)) for name in groups])


def _add_images(picture: Image.Image, places: np.ndarray, read: Read, colors: np.ndarray) -> None:
    """Put images at (N, 2) places, in an arbitrary order, where there is room."""
    taken = np.empty((0, 2))
    for i in np.random.default_rng(_SEED).permutation(len(places)).tolist():
        if len(taken) == _MOST_IMAGES:
            return
        if (np.abs(taken - places[i]).max(axis=1) < _APART).any():
            continue
        pixels = read(i)
        if pixels is None:
            continue
        framed = ImageOps.expand(thumbnail(Image.fromarray(pixels), _SIDE), _RIM, to_hex(colors[i]))
        corner = (places[i] - np.array(framed.size) / 2).round().astype(int)
        picture.paste(framed, tuple(corner))
        taken = np.vstack([taken, places[i]])


def draw_costs(rows: Iterable[Row], x: str) -> Figure:
    """Draw value against cost, a panel per dataset and metric, each point with its name.

    Args:
        rows: With `value`, the key `x`, `config` or `model`, and maybe `data` and `metric`; rows
            that lack value or cost are left out.
        x: Key of the cost: `'images_per_second'`, `'parameters'` or `'peak_memory_mib'`.

    Raises:
        ValueError: If no row has both.
    """
    panels: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.get('value') is not None and row.get(x):
            key = row.get('data') or '', row.get('metric') or ''
            panels.setdefault(key, []).append(row)
    if not panels:
        raise ValueError(f'nothing to draw: no run has both a value and {x}')
    columns = min(_COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(5.2 * columns, 4 * lines), dpi=100, layout='constrained')
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    for ax, (key, group) in zip(axes, panels.items(), strict=False):
        _draw_points(ax, key, group, x)
    figure.draw_without_rendering()  # places the panels, and with them the points
    for ax, group in zip(axes, panels.values(), strict=False):
        _label(ax, group, x)
    return figure


def _draw_points(ax: Axes, key: tuple[str, str], rows: Sequence[Row], x: str) -> None:
    title, unit = _AXES[x]
    costs = [row[x] / unit for row in rows]
    values = [row['value'] for row in rows]
    ax.scatter(costs, values, s=28, color='#1f77b4', zorder=3)
    ax.set(title=key[0], xlabel=title, ylabel=key[1], xlim=(0, 1.2 * max(costs)))
    middle, span = (max(values) + min(values)) / 2, max(values) - min(values)
    ax.set_ylim(*(middle + side * max(1.3 * span, _LEAST) / 2 for side in (-1, 1)))
    ax.grid(alpha=0.3)
    if max(costs) > _LOGARITHMIC * min(costs):
        ax.set_xscale('log')
        ax.set_xlim(min(costs) / 2, max(costs) * 2)
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_formatter(NullFormatter())


def _label(ax: Axes, rows: Sequence[Row], x: str) -> None:
    """Write each name where it covers neither a point nor another name."""
    points = [(row[x] / _AXES[x][1], row['value']) for row in rows]
    taken = [Bbox.from_bounds(*(ax.transData.transform(point) - 5), 10, 10) for point in points]
    for point, name in zip(points, _names(rows), strict=True):
        for distance, (across, up) in itertools.product(_DISTANCES, _SIDES):
            text = ax.annotate(
                name,
                point,
                (across * distance, up * distance),
                textcoords='offset points',
                ha=('center', 'left', 'right')[across],
                va=('center', 'bottom', 'top')[up],
                fontsize=8,
            )
            box = text.get_window_extent().padded(3)
            fits = Bbox.union([box, ax.bbox]).bounds == ax.bbox.bounds
            last = (distance, (across, up)) == (_DISTANCES[-1], _SIDES[-1])
            if last or (fits and not any(box.overlaps(other) for other in taken)):
                taken.append(box)
                break
            text.remove()


def _names(rows: Sequence[Row]) -> list[str]:
    """Short names, without the parts that all of them end with."""
    parts = [Path(row.get('config') or row.get('model') or '?').stem.split('_') for row in rows]
    while len(parts) > 1 and all(len(p) > 1 for p in parts) and len({p[-1] for p in parts}) == 1:
        parts = [p[:-1] for p in parts]
    return [unformatted('_'.join(part)) for part in parts]
