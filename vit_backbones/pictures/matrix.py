"""Draw confusion matrices."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from vit_backbones.pictures.canvas import unformatted

_NUMBERED = 30  # classes up to which the cells hold their numbers
_SHORT = EngFormatter(places=0, sep='')  # 21k for 21153


def draw_confusion(matrix: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Draw a confusion matrix in percent of each row, with the row's count beside its name.

    `matrix` has (n + 1, n + 1) counts by true class (row) and predicted class. The last row and
    column are `none`; they are left out if they are empty.
    """
    names = [*map(unformatted, classes), 'none']
    if not matrix[-1].any() and not matrix[:, -1].any():
        matrix, names = matrix[:-1, :-1], names[:-1]
    totals = matrix.sum(axis=1)
    share = 100 * matrix / np.maximum(totals[:, None], 1)
    side = min(20, 3 + 0.42 * len(names))
    figure = Figure(figsize=(side + 1.2, side), dpi=100, layout='constrained')
    axes = figure.subplots()
    image = axes.imshow(share, cmap='Blues', vmin=0, vmax=100)
    small = 9 if len(names) <= _NUMBERED else 6
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=small)
    counts = [f'{name} ({_SHORT(total)})' for name, total in zip(names, totals, strict=True)]
    axes.set_yticks(range(len(names)), counts, fontsize=small)
    axes.set(xlabel='predicted', ylabel='true')
    axes.set_title(title, fontsize=10, wrap=True)
    for (row, column), value in np.ndenumerate(share if len(names) <= _NUMBERED else ()):
        if value >= 0.5 or (row == column < len(classes) and totals[row]):
            color = 'white' if value > 50 else 'black'
            axes.text(column, row, f'{value:.0f}', ha='center', va='center', color=color, size=8)
    figure.colorbar(image, ax=axes, label='% of the row', shrink=0.8)
    return figure
