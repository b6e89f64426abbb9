"""Values of each class, several runs side by side."""

import csv
import io
import math
from collections.abc import Mapping, Sequence

import numpy as np

from vit_backbones.evaluation.testing import Predictions

Table = list[list[str]]


def per_class_table(results: Mapping[str, Predictions]) -> Table:
    """Table of values by class and their mean, with the difference of each run to the first.

    A column has a dash for a class that the run lacks. The table is empty if no run has values.
    """
    classes = list(dict.fromkeys(name for each in results.values() for name in each.classes))
    metrics = dict.fromkeys(metric for each in results.values() for metric in each.per_class)
    columns = [['class', *classes, 'mean']]
    for metric in metrics:
        first = None
        for name, result in results.items():
            values = _by_class(result, metric, classes)
            several = len(results) > 1
            columns.append([f'{metric} {name}' if several else metric, *_cells(metric, values)])
            if first is None:
                first = (name, values)
            else:
                cells = _cells(metric, values - first[1], sign='+')
                columns.append([f'{metric} {name} - {first[0]}', *cells])
    return [list(row) for row in zip(*columns, strict=True)] if metrics else []


def _by_class(result: Predictions, metric: str, classes: Sequence[str]) -> np.ndarray:
    """(num_classes + 1,) values of a metric, the last their mean over the classes of the run."""
    given = result.per_class.get(metric, np.full(len(result.classes), math.nan))
    known = dict(zip(result.classes, given, strict=True))
    values = [known.get(name, math.nan) for name in classes]
    present = [value for value in values if not math.isnan(value)]
    return np.array([*values, np.mean(present) if present else math.nan])


def _cells(metric: str, values: np.ndarray, sign: str = '') -> list[str]:
    digits = 3 if metric == 'AP' else 2  # as mmdet and mmseg round them
    return ['-' if math.isnan(value) else f'{value:{sign}.{digits}f}' for value in values]


def as_csv(table: Table) -> str:
    """A table as the content of a CSV file."""
    content = io.StringIO()
    csv.writer(content, lineterminator='\n').writerows(table)
    return content.getvalue()


def as_markdown(table: Table) -> str:
    """A table in Markdown, with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        [cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in cells]
        for cells in ([*enumerate(zip(row, widths, strict=True))] for row in table)
    ]
    rule = ['-' * width if i == 0 else '-' * (width - 1) + ':' for i, width in enumerate(widths)]
    return ''.join(f'| {" | ".join(line)} |\n' for line in [lines[0], rule, *lines[1:]])
