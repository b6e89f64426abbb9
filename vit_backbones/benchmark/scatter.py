"""A picture of what models are worth against what they cost."""

import io
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, ScalarFormatter
from matplotlib.transforms import Bbox

from vit_backbones.benchmark.results import Row, ordered

_AXES = {
    'images_per_second': ('images a second', 1),
    'parameters': ('million parameters', 1e6),
    'peak_memory_mib': ('peak memory, GiB', 1024),
}
_COLUMNS = 2  # panels in a row
_LEAST = 0.2  # of values on an axis, so that small differences look small
_WIDE = 8  # a logarithmic axis where the largest is so many times the smallest
_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
_DISTANCES = (7, 14, 24, 36)  # of a label, in points


def scatter(rows: Iterable[Row], x: str, suffix: str = '.png') -> bytes:
    """Value against cost, a panel for each data set and metric, each point with its name.

    Args:
        rows: As `markdown` takes them; those that lack one of both are left out.
        x: Key of the cost: `'images_per_second'`, `'parameters'` or `'peak_memory_mib'`.
        suffix: Format of the picture, such as `'.png'` or `'.svg'`.

    Raises:
        ValueError: If no row has both, or if matplotlib does not write that format.
    """
    drawn = [row for row in ordered(rows) if row.get('value') is not None and row.get(x)]
    if not drawn:
        raise ValueError(f'nothing to draw: no run has both a value and {x}')
    panels = [
        (key, list(group))
        for key, group in itertools.groupby(
            drawn, lambda r: (r.get('data') or '', r.get('metric') or '')
        )
    ]
    columns = min(_COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(5.2 * columns, 4 * lines), squeeze=False, layout='constrained'
    )
    try:
        for panel, ax in itertools.zip_longest(panels, axes.flat):
            ax.set_visible(panel is not None)
            if panel is not None:
                _draw(ax, *panel, x)
        figure.canvas.draw()  # places the panels, and with them the points
        for (_, group), ax in zip(panels, axes.flat, strict=False):
            _label(ax, group, x)
        picture = io.BytesIO()
        figure.savefig(picture, format=suffix.lstrip('.') or 'png', dpi=100)
        return picture.getvalue()
    finally:
        plt.close(figure)


def _draw(ax: Axes, key: tuple[str, str], rows: Sequence[Row], x: str) -> None:
    title, unit = _AXES[x]
    costs = [row[x] / unit for row in rows]
    values = [row['value'] for row in rows]
    ax.scatter(costs, values, s=28, color='#1f77b4', zorder=3)
    ax.set(title=key[0], xlabel=title, ylabel=key[1], xlim=(0, 1.2 * max(costs)))
    middle, span = (max(values) + min(values)) / 2, max(values) - min(values)
    ax.set_ylim(*(middle + side * max(1.3 * span, _LEAST) / 2 for side in (-1, 1)))
    ax.grid(alpha=0.3)
    if max(costs) > _WIDE * min(costs):
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
    """Short names: without what all of them end with."""
    parts = [Path(row.get('config') or row.get('model') or '?').stem.split('_') for row in rows]
    while len(parts) > 1 and all(len(p) > 1 for p in parts) and len({p[-1] for p in parts}) == 1:
        parts = [p[:-1] for p in parts]
    return ['_'.join(part) for part in parts]
