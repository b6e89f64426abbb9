"""Tables of runs in Markdown: of the README, and of `tools/benchmark.py`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

# Key of a row, heading, how its value is written
COLUMNS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ('config', 'config', lambda path: f'`{path.removeprefix("configs/")}`'),
    ('model', 'model', lambda name: f'`{name}`'),
    ('weights', 'weights', lambda name: f'`{Path(name).name}`'),
    ('layers', 'layers', lambda layers: ', '.join(map(str, layers))),
    ('dims', 'dims', str),
    ('data', 'data', str),
    ('metric', 'metric', str),
    ('value', 'value', lambda value: f'{value:.3f}'),
    ('fine_tuned', 'fine-tuned', lambda value: f'{value:.3f}'),
    ('parameters', 'parameters', lambda number: f'{number / 1e6:.1f} M'),
    ('minutes', 'minutes', lambda minutes: f'{minutes:.0f}'),
    ('feature_seconds', 'features, s', lambda seconds: f'{seconds:.0f}'),
    ('probe_seconds', 'probe, s', lambda seconds: f'{seconds:.0f}'),
    ('fine_tune_minutes', 'fine-tuning, min', lambda minutes: f'{minutes:.1f}'),
    ('peak_memory_mib', 'peak memory', lambda mib: f'{mib / 1024:.1f} GiB'),
    ('images_per_second', 'images/s', lambda speed: f'{speed:.1f}'),
    ('hardware', 'hardware', str),
    ('date', 'date', str),
)


def markdown(rows: Iterable[Row]) -> str:
    """Rows as a table, by data, metric and value; columns that no row fills are left out.

    Args:
        rows: With the keys of `COLUMNS`; those that are missing or `None` are left empty.
    """
    rows = ordered(rows)
    columns = [column for column in COLUMNS if any(row.get(column[0]) is not None for row in rows)]
    lines = [[heading for _, heading, _ in columns], ['---'] * len(columns)]
    lines += [[_cell(row.get(key), write) for key, _, write in columns] for row in rows]
    return '\n'.join(map(table_row, lines))


def table_row(cells: Sequence[str]) -> str:
    """A row of Markdown."""
    return f'| {" | ".join(cells)} |'


def ordered(rows: Iterable[Row]) -> Sequence[Row]:
    """Rows by data, metric and value."""
    return sorted(
        rows,
        key=lambda row: (row.get('data') or '', row.get('metric') or '', row.get('value') or 0),
    )


def _cell(value: Any, write: Callable[[Any], str]) -> str:
    return '' if value is None else write(value)
