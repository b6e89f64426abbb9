"""Draw how time and memory grow with the size of the images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

_PANELS = {'ms': ('time', 'milliseconds'), 'memory_mib': ('memory', 'MiB')}


def draw_growth(rows: Sequence[Mapping[str, Any]], fits: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw time and memory over the side of a square of as many pixels, both logarithmic.

    A line stands for a model, kind and batch, as `benchmark.growth` measures them; its label has
    the exponent of the pixels.
    """
    powers = {(f['model'], f['kind'], f['at']): f for f in fits if f['of'] == 'pixels'}
    groups: dict[tuple[str, str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        if 'ms' in row:
            groups.setdefault((row['model'], row['kind'], row['batch_size']), []).append(row)
    figure = Figure(figsize=(11, 4.5), dpi=100, layout='constrained')
    for axes, (key, (title, unit)) in zip(figure.subplots(1, 2), _PANELS.items(), strict=True):
        for (model, kind, batch), own in groups.items():
            sides = [(row['size'][0] * row['size'][1]) ** 0.5 for row in own]
            power = powers.get((model, kind, f'batch {batch}'), {}).get(
                'time' if key == 'ms' else 'memory'
            )
            label = f'{Path(model).stem if model.endswith(".py") else model}, {kind}, batch {batch}'
            label += '' if power is None else f': {power:.2f}'
            axes.plot(sides, [row[key] for row in own], marker='o', label=label)
        axes.set(title=title, xlabel='side of the image, pixels', ylabel=unit)
        axes.set(xscale='log', yscale='log')
        axes.set_xticks(sorted({round(side) for line in axes.lines for side in line.get_xdata()}))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3, which='both')
        if axes.lines:
            axes.legend(fontsize=8, title='exponent of the pixels', title_fontsize=8)
    return figure
