"""Results of runs: read from work dirs and JSON files, written as JSON, shown as tables."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import timm
import torch

from vit_backbones.config.facts import Facts
from vit_backbones.config.loading import load_config
from vit_backbones.files import json_of, write_whole
from vit_backbones.metrics import STANDARD_ERROR
from vit_backbones.training.record_hook import cpu_name
from vit_backbones.version import __version__

Row = Mapping[str, Any]

WHOLE = {'PQ': 100, 'segm_mAP': 1, 'bbox_mAP': 1, 'mIoU': 100}  # values that stand for 1
_COPIED = ('config', 'parameters', 'minutes', 'peak_memory_mib', 'date')
# Key of a row, heading, how its value is written
COLUMNS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ('config', 'config', lambda path: f'`{path.removeprefix("configs/")}`'),
    ('options', 'trained with', lambda options: f'`{options}`' if options else ''),
    ('test_options', 'tested with', lambda options: f'`{options}`' if options else ''),
    ('model', 'model', lambda name: f'`{name}`'),
    ('weights', 'weights', lambda name: f'`{Path(name).name}`'),
    ('layers', 'layers', lambda layers: ', '.join(map(str, layers))),
    ('size', 'size', str),
    ('dims', 'dims', str),
    ('data', 'data', str),
    ('metric', 'metric', str),
    ('value', 'value', lambda value: f'{value:.3f}'),
    ('interval', '95 % interval', lambda ends: '{:.3f} to {:.3f}'.format(*ends)),
    ('seeds', 'seeds', str),
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


def read_runs(runs: Iterable[Path]) -> tuple[list[Row], list[str]]:
    """Rows of all work dirs and JSON files that can be read, and a line for each other path."""
    rows, left_out = [], []
    for path in runs:
        try:
            rows += of_work_dir(path) if path.is_dir() else of_file(path)
        except (OSError, ValueError) as error:
            left_out.append(f'{path}: {getattr(error, "strerror", None) or error}')
        except (AttributeError, KeyError, TypeError):  # JSON of others
            left_out.append(f'{path}: no results of tools/benchmark.py')
    return rows, left_out


def of_work_dir(folder: Path) -> list[dict[str, Any]]:
    """Rows of a training, one per metric.

    Values of the last validation of `tools/train.py`, 0 to 1, and images a second of
    `tools/test.py`, if it ran.
    """
    shared, record = _training(folder)
    reached = record['validations'][-1]['metrics'] if record.get('validations') else {}
    rows = [shared | each for each in values(reached)]
    if not rows:
        raise ValueError(f'record.json has none of {", ".join(WHOLE)}')
    return rows


def of_test(folder: Path, tested: Path) -> list[dict[str, Any]]:
    """Rows of a training, one per metric of the test in `tested`, maybe with `error`.

    That is the standard error over images, where the test computed it.
    """
    shared, _ = _training(folder)
    record = _json(tested / 'test.json')
    speed = record.get('test_images_per_second') or shared['images_per_second']
    return [shared | each | dict(images_per_second=speed) for each in values(record['metrics'])]


def values(metrics: Mapping[str, float]) -> list[dict[str, Any]]:
    """`metric`, `value` (0 to 1) and, if it is there, `error` of each main metric."""
    short = {name.split('/')[-1]: each for name, each in metrics.items() if each is not None}
    found = []
    for name, whole in WHOLE.items():
        if name in short:
            found.append(dict(metric=name, value=short[name] / whole))
            if name + STANDARD_ERROR in short:
                found[-1]['error'] = short[name + STANDARD_ERROR] / whole
    return found


def _training(folder: Path) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """What all rows of a training share, and its record."""
    record = _json(folder / 'record.json') if (folder / 'record.json').exists() else None
    if not isinstance(record, Mapping):
        raise ValueError('no record.json, which tools/train.py writes when a training ends')
    tested = _json(folder / 'test.json') if (folder / 'test.json').exists() else {}
    shared = {key: record[key] for key in _COPIED if key in record}
    shared |= dict(
        data=_data_of(folder / Path(record['config']).name),
        hardware=record.get('device'),
        images_per_second=tested.get('test_images_per_second')
        or record.get('val_images_per_second'),
    )
    shared['config'] = Path(record['config']).name
    return shared, record


def of_file(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON file: one of `tools/benchmark.py`, or a run of docs/results."""
    content = _json(path)
    if isinstance(content, Mapping) and isinstance(content.get('rows'), list):
        environment = content.get('environment') or {}
        shared = dict(hardware=environment.get('device'), date=environment.get('date'))
        rows = [_with_conditions(shared | row) for row in content['rows']]
    else:
        rows = content if isinstance(content, list) else [content]
    if not rows or not all(
        isinstance(row, Mapping) and row.keys() & {'value', 'images_per_second'} for row in rows
    ):
        raise ValueError('no results of tools/benchmark.py')
    return rows


def _with_conditions(row: dict[str, Any]) -> dict[str, Any]:
    """Name in `data` the conditions under which `speed` measured a row."""
    if 'latency_ms' not in row:
        return row
    size = 'x'.join(map(str, row['size']))
    return row | dict(data=f'noise {size}, {row["dtype"]}, {row["mode"]}')


def _data_of(config: Path) -> str | None:
    """Name the data that validated a run, from the config in its work dir."""
    if not config.exists():
        return None
    found = Facts.of(load_config(config), ('val',)).datasets['val']
    roots = {str(each.get('data_root') or each.get('type')) for _, each in found}
    return ' + '.join(sorted(f'{Path(root).name} val' for root in roots)) or None


def _json(path: Path) -> Any:
    try:
        return json_of(path.read_bytes(), path)
    except ValueError:
        raise ValueError('no JSON') from None


def write_json(path: Path, **content: Any) -> None:
    """Write a record whole."""
    write_whole(path, (json.dumps(content, indent=1, allow_nan=False) + '\n').encode())


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Describe the conditions of a measurement: `date`, `device`, `threads` and `versions`."""
    on_gpu = device.type == 'cuda'
    return dict(
        date=datetime.now(UTC).date().isoformat(),
        device=torch.cuda.get_device_name(device) if on_gpu else cpu_name(),
        threads=torch.get_num_threads(),
        versions=dict(vit_backbones=__version__, torch=torch.__version__, timm=timm.__version__),
    )


def heading(environment: Mapping[str, Any]) -> str:
    """An environment in one line."""
    versions = ', '.join(f'{name} {version}' for name, version in environment['versions'].items())
    devices = ', '.join(environment[key] for key in ('device', 'gpu') if key in environment)
    return f'{devices}, {environment["threads"]} threads, {versions}'


def markdown(rows: Iterable[Row]) -> str:
    """Rows as a table, by data, metric and value; columns that no row fills are left out."""
    rows = ordered(rows)
    columns = [column for column in COLUMNS if any(_filled(row.get(column[0])) for row in rows)]
    lines = [*table_head([heading for _, heading, _ in columns])]
    for row in rows:
        values = [(row.get(key), write) for key, _, write in columns]
        lines.append(table_row(['' if v is None else write(v) for v, write in values]))
    return '\n'.join(lines)


def _filled(value: Any) -> bool:
    return value is not None and value != ''


def ordered(rows: Iterable[Row]) -> list[Row]:
    """Rows by data, metric and value."""
    return sorted(
        rows,
        key=lambda row: (row.get('data') or '', row.get('metric') or '', row.get('value') or 0),
    )


def digits(value: float) -> str:
    """Three digits, more before the point."""
    return f'{value:.3g}' if value < 100 else f'{value:.0f}'


def table_head(cells: Sequence[str]) -> tuple[str, str]:
    """The first two lines of a table in Markdown."""
    return table_row(cells), table_row(['---'] * len(cells))


def table_row(cells: Sequence[str]) -> str:
    """A row of Markdown."""
    return f'| {" | ".join(cells)} |'
