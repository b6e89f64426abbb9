"""Training curves of several runs in one picture."""

import io
from collections.abc import Mapping

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vit_backbones.analysis.runs import History
from vit_backbones.training.hooks import plot_smoothed
from vit_backbones.training.metrics import headline, metric_text


def compare_curves(histories: Mapping[str, History]) -> Figure:
    """Draw the loss (left) and the main metric (right) of runs, one colour a run.

    Over epochs if all runs count them, else over iterations. The losses of several runs are drawn
    on a logarithmic scale: those of different heads lie far apart. Runs that have no metric in
    common get a picture of each one's main metric.

    Args:
        histories: By the name of the run.
    """
    metrics = _metrics(histories)
    panels = list(dict.fromkeys(filter(None, metrics.values()))) or [None]
    by_epoch = all(each.epoch_length for each in histories.values())
    # as many entries below the pictures as runs
    size = 5.5 * (1 + len(panels)), 4 + 0.22 * len(histories)
    figure = Figure(figsize=size, dpi=100, layout='constrained')
    left, *right = figure.subplots(1, 1 + len(panels), sharex=True)
    places = dict(zip(panels, right, strict=True))
    handles = []
    for color, (name, history) in zip(_colors(len(histories)), histories.items(), strict=False):
        unit = history.epoch_length if by_epoch else 1
        plot_smoothed(left, history.steps / unit, history.losses, color)
        metric = metrics[name]
        entries = [v for v in history.validations if v['metrics'].get(metric) is not None]
        values = [each['metrics'][metric] for each in entries]
        steps = [each['iter'] / unit for each in entries]
        if entries:
            places[metric].plot(steps, values, color=color, marker='o', ms=4)
        told = f'{name}: {metric_text(metric, values[-1])}' if values else name
        handles.append(Line2D([], [], color=color, label=told))
    xlabel = 'epoch' if by_epoch else 'iteration'
    left.set(title='training loss', xlabel=xlabel)
    for metric, axes in places.items():
        title = f'validation, {metric.split("/")[-1]}' if metric else 'no validation yet'
        axes.set(title=title, xlabel=xlabel)
    if len(histories) > 1 and all((each.losses > 0).all() for each in histories.values()):
        left.set_yscale('log')
    for axes in (left, *right):
        axes.grid(alpha=0.3)
    figure.legend(handles=handles, loc='outside lower center', frameon=False)
    return figure


def png(figure: Figure) -> bytes:
    """A figure as the content of a PNG file."""
    content = io.BytesIO()
    figure.savefig(content, format='png', bbox_inches='tight')
    return content.getvalue()


def _metrics(histories: Mapping[str, History]) -> dict[str, str | None]:
    """For each run the metric to draw: one that all have, else its own main one."""
    # A detector that detects nothing has no metrics
    told = {
        name: [entry['metrics'] for entry in each.validations if entry['metrics']]
        for name, each in histories.items()
    }
    last = {name: metrics[-1] for name, metrics in told.items() if metrics}
    shared = [key for key in next(iter(last.values()), ()) if all(key in m for m in last.values())]
    return {
        name: headline({key: last[name][key] for key in shared or last[name]})
        if name in last
        else None
        for name in histories
    }


def _colors(number: int) -> list[str]:
    """Ten that are told apart well; more are spread over a rainbow."""
    if number <= 10:
        return [to_hex(color) for color in colormaps['tab10'].colors]
    return [to_hex(color) for color in colormaps['turbo'](np.linspace(0, 1, number))]
