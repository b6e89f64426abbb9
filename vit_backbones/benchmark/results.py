"""What runs reached, read from work dirs and JSON files."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vit_backbones.benchmark.table import Row, markdown, ordered
from vit_backbones.config.facts import Facts
from vit_backbones.config.loading import load_config
from vit_backbones.files import check_writable, write_whole
from vit_backbones.pictures.canvas import figure_file
from vit_backbones.pictures.scatter import draw_costs

_WHOLE = {'PQ': 100, 'segm_mAP': 1, 'bbox_mAP': 1, 'mIoU': 100}  # values that stand for 1
_COPIED = ('config', 'parameters', 'minutes', 'peak_memory_mib', 'date')


def run_table(
    runs: Iterable[Path],
    *,
    out: Path | None = None,
    rows_out: Path | None = None,
    plot: Path | None = None,
    x: str = 'images_per_second',
) -> int:
    """Print a table of runs in Markdown.

    Args:
        runs: Work dirs and JSON files.
        out: File for the table.
        rows_out: JSON file for its rows.
        plot: File for a picture of value against `x`.
        x: Key of a row.

    Returns:
        Exit code.

    Raises:
        OSError: If a file cannot be written.
        ValueError: If nothing can be read, or nothing can be drawn.
    """
    for path in (out, rows_out, plot):
        if path is not None:
            check_writable(path)
    rows = list(_readable(runs))
    if not rows:
        raise ValueError('none of these is a work dir with a record, or a file of results')
    text = markdown(rows)
    print(text)
    contents = {
        plot: lambda: figure_file(draw_costs(ordered(rows), x), plot.suffix),
        out: lambda: f'{text}\n'.encode(),
        rows_out: lambda: f'{json.dumps(ordered(rows), indent=1)}\n'.encode(),
    }
    for path, content in contents.items():
        if path is not None:
            write_whole(path, content())
            print(f'wrote {path}')
    return 0


def _readable(runs: Iterable[Path]) -> Iterator[Row]:
    """Rows of those that can be read; a line each for the others."""
    for path in runs:
        try:
            yield from (of_work_dir(path) if path.is_dir() else of_file(path))
        except (OSError, ValueError) as error:
            reason = getattr(error, 'strerror', None) or error
            print(f'left out: {path}: {reason}', file=sys.stderr)
        except (AttributeError, KeyError, TypeError):  # JSON of others
            print(f'left out: {path}: no results of tools/benchmark.py', file=sys.stderr)


def of_work_dir(folder: Path) -> list[dict[str, Any]]:
    """Rows of a training, one a metric.

    Args:
        folder: Where `tools/train.py` trained, and `tools/test.py` tested if it did.

    Returns:
        Values of the last validation, 0 to 1; images a second of the test, if there was one.

    Raises:
        ValueError: If there is no record, or one without a metric that is known.
    """
    record = _json(folder / 'record.json') if (folder / 'record.json').exists() else None
    if not isinstance(record, Mapping):
        raise ValueError('no record.json, which tools/train.py writes when a training ends')
    tested = _json(folder / 'test.json') if (folder / 'test.json').exists() else {}
    reached = record['validations'][-1]['metrics'] if record.get('validations') else {}
    names = {name.split('/')[-1]: name for name in reached}
    shared = {key: record[key] for key in _COPIED if key in record}
    shared |= dict(
        data=_data_of(folder / Path(record['config']).name),
        hardware=record.get('device'),
        images_per_second=tested.get('test_images_per_second')
        or record.get('val_images_per_second'),
    )
    shared['config'] = Path(record['config']).name
    rows = [
        shared | dict(metric=short, value=reached[names[short]] / whole)
        for short, whole in _WHOLE.items()
        if reached.get(names.get(short)) is not None
    ]
    if not rows:
        raise ValueError(f'record.json has none of {", ".join(_WHOLE)}')
    return rows


def of_file(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON file: of `tools/benchmark.py`, or a run of docs/results.

    Args:
        path: The file.

    Raises:
        OSError: If it is not there.
        ValueError: If it is another file.
    """
    content = _json(path)
    if isinstance(content, Mapping) and isinstance(content.get('rows'), list):
        environment = content.get('environment') or {}
        told = dict(hardware=environment.get('device'), date=environment.get('date'))
        rows = [_with_conditions(told | row) for row in content['rows']]
    else:
        rows = content if isinstance(content, list) else [content]
    if not rows or not all(
        isinstance(row, Mapping) and row.keys() & {'value', 'images_per_second'} for row in rows
    ):
        raise ValueError('no results of tools/benchmark.py')
    return rows


def _with_conditions(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `speed` says in `data` on what its images a second were measured."""
    if 'latency_ms' not in row:
        return row
    size = 'x'.join(map(str, row['size']))
    return row | dict(data=f'noise {size}, {row["dtype"]}, {row["mode"]}')


def _data_of(config: Path) -> str | None:
    """Name of the data that a run was validated on, from its config in the work dir."""
    if not config.exists():
        return None
    found = Facts.of(load_config(config), ('val',)).datasets['val']
    roots = {str(each.get('data_root') or each.get('type')) for _, each in found}
    return ' + '.join(sorted(f'{Path(root).name} val' for root in roots)) or None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise ValueError('no JSON') from None
