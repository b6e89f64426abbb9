"""Draw the curves of one training, and of several beside each other."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vit_backbones.metrics import headline, metric_text
from vit_backbones.pictures.canvas import unformatted


class History(NamedTuple):
    """Curves of a training.

    Attributes:
        steps: (n,) iterations.
        losses: (n,) training losses at these iterations.
        validations: As `training.curves_hook.validations` gives them; `epoch` may be missing.
        epoch_length: Iterations per epoch; `None` if the training does not count epochs.
    """

    steps: np.ndarray
    losses: np.ndarray
    validations: list[dict[str, Any]]
    epoch_length: float | None


def draw_curves(
    losses: np.ndarray, entries: Sequence[dict[str, Any]], marks: Mapping[int, str] | None = None
) -> Figure:
    """Draw (n,) losses of all iterations and the metrics of validations: 1100 x 400 pixels.

    `marks` are iterations at which something happens to the loss, with what it is.
    """
    figure = Figure(figsize=(11, 4), dpi=100, layout='constrained')
    left, right = figure.subplots(1, 2)
    plot_smoothed(left, np.arange(1, len(losses) + 1), losses, 'tab:blue')
    for step, label in (marks or {}).items():
        left.axvline(step, color='tab:gray', linestyle='--', label=label)
    left.set(title='training loss', xlabel='iteration')
    for name in _main_metrics(entries):
        points = [(e['iter'], e['metrics'][name]) for e in entries if name in e['metrics']]
        right.plot(*zip(*points, strict=True), marker='.', label=name.split('/')[-1])
    right.set(title='validation', xlabel='iteration')
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    return figure


def plot_smoothed(axes: Axes, steps: np.ndarray, values: np.ndarray, color: str) -> None:
    """Plot (n,) values over (n,) steps; a hundred or more faintly under their moving mean."""
    window = max(1, len(values) // 50)
    alpha = 1 if window == 1 else 0.3
    axes.plot(steps, values, color=color, alpha=alpha, label='each iteration')
    if window > 1:
        smooth = np.convolve(values, np.full(window, 1 / window), mode='valid')
        axes.plot(steps[window - 1 :], smooth, color=color, label=f'mean of {window}')


def _main_metrics(entries: Sequence[dict[str, Any]]) -> list[str]:
    """Up to six names, without metrics by object size, which would hide the others."""
    names = dict.fromkeys(name for entry in entries for name in entry['metrics'])
    return [name for name in names if not name.endswith(('_s', '_m', '_l', 'time'))][:6]


def compare_curves(histories: Mapping[str, History]) -> Figure:
    """Draw the loss (left) and the main metric (right) of named runs, one colour per run.

    The x axis shows epochs if all runs count them, else iterations. The loss axis of several runs
    is logarithmic: losses of different heads lie far apart. Runs without a common metric get a
    panel for each one's main metric.
    """
    metrics = _metrics(histories)
    panels = list(dict.fromkeys(filter(None, metrics.values()))) or [None]
    by_epoch = all(each.epoch_length for each in histories.values())
    # the legend below the panels has a line per run
    size = 5.5 * (1 + len(panels)), 4 + 0.22 * len(histories)
    figure = Figure(figsize=size, dpi=100, layout='constrained')
    left, *right = figure.subplots(1, 1 + len(panels), sharex=True)
    places = dict(zip(panels, right, strict=True))
    handles = []
    for color, (name, history) in zip(_colors(len(histories)), histories.items(), strict=False):
        unit = history.epoch_length if by_epoch else 1
        plot_smoothed(left, history.steps / unit, history.losses, color)
        metric, points = metrics[name], _points(history, metrics[name], unit)
        if points:
            places[metric].plot(*zip(*points, strict=True), color=color, marker='o', ms=4)
        label = f'{name}: {metric_text(metric, points[-1][1])}' if points else name
        handles.append(Line2D([], [], color=color, label=unformatted(label)))
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


def _points(history: History, metric: str | None, unit: float) -> list[tuple[float, float]]:
    """(place, value) of each validation that has a metric."""
    values = [(each['iter'] / unit, each['metrics'].get(metric)) for each in history.validations]
    return [point for point in values if point[1] is not None]


def _metrics(histories: Mapping[str, History]) -> dict[str, str | None]:
    """The metric to draw of each run: one that all have, else its own main one."""
    # A detector that detects nothing has no metrics
    logged = {
        name: [entry['metrics'] for entry in each.validations if entry['metrics']]
        for name, each in histories.items()
    }
    last = {name: metrics[-1] for name, metrics in logged.items() if metrics}
    shared = [key for key in next(iter(last.values()), ()) if all(key in m for m in last.values())]
    found = {
        name: headline({key: metrics[key] for key in shared or metrics})
        for name, metrics in last.items()
    }
    return {name: found.get(name) for name in histories}


def _colors(number: int) -> list[str]:
    """Ten distinct colours; for more runs a rainbow."""
    if number <= 10:
        return [to_hex(color) for color in colormaps['tab10'].colors]
    return [to_hex(color) for color in colormaps['turbo'](np.linspace(0, 1, number))]
