"""How the cost of a model grows with the size of the images and with the batch."""

import gc
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from vit_backbones.benchmark.measuring import interleaved, memory_of
from vit_backbones.benchmark.results import digits, table_head, table_row
from vit_backbones.benchmark.subjects import (
    Setting,
    Subject,
    build_backbone,
    of_backbone,
    of_config,
)
from vit_backbones.benchmark.training_step import TrainingStep, training_step
from vit_backbones.config.loading import CONFIGS
from vit_backbones.position import Grid

KINDS = ('global', 'windows', 'vitdet')
WINDOW = 14
_SIDES = (224, 384, 512, 768, 1024)
_SIDES_OF_GPU = (*_SIDES, 1536)
_PART = 0.9  # of the memory that is free, which a step may need
_GIB = 2**30

Row = dict[str, Any]


class Wanted(NamedTuple):
    """What to measure.

    Attributes:
        models: Names of backbones of `source`, or paths of configs, whole models.
        kinds: For backbones: `'global'` attention, `'windows'` in all blocks, or `'vitdet'`:
            windows in all but the last block of each quarter, with relative positions.
        options: `key=value` changes of the configs.
        memory_gib: What a step may need; `None` for the memory that is free.
    """

    models: Sequence[str]
    source: str
    kinds: Sequence[str]
    options: Sequence[str]
    sizes: Sequence[Grid]
    batch_sizes: Sequence[int]
    setting: Setting
    repeats: int
    memory_gib: float | None = None


def sizes(device: torch.device) -> list[Grid]:
    """What a device measures if nothing is asked for."""
    sides = _SIDES_OF_GPU if device.type == 'cuda' else _SIDES
    return [(side, side) for side in sides]


def check(wanted: Wanted) -> None:
    """Build everything once in the smallest setting, so that mistakes show first."""
    if wanted.options and not any(model.endswith(CONFIGS) for model in wanted.models):
        raise ValueError('options= change configs, and none is among the models')
    smallest = min(wanted.sizes, key=_pixels), min(wanted.batch_sizes)
    setting = wanted.setting._replace(size=smallest[0], batch_size=smallest[1])
    for model in wanted.models:
        for kind in _kinds(model, wanted):
            _subject(model, kind, wanted, setting)


def grow(wanted: Wanted) -> Iterator[Row]:
    """Measure a row for each model, kind, batch and size, the small ones first.

    A row has `ms` and `memory_mib`; or `skipped`, the reason, where memory cannot hold it.
    """
    by_pixels = sorted(wanted.sizes, key=_pixels)
    for model in wanted.models:
        for kind in _kinds(model, wanted):
            rows: list[Row] = []
            for batch, size in itertools.product(sorted(wanted.batch_sizes), by_pixels):
                setting = wanted.setting._replace(size=size, batch_size=batch)
                row = dict(model=model, kind=kind, size=list(size), batch_size=batch)
                rows.append(row | _figures(model, kind, wanted, setting, rows))
                yield rows[-1]


def _kinds(model: str, wanted: Wanted) -> Sequence[str]:
    return ('whole model',) if model.endswith(CONFIGS) else wanted.kinds


def _figures(
    model: str, kind: str, wanted: Wanted, setting: Setting, before: Sequence[Row]
) -> dict[str, Any]:
    room = (wanted.memory_gib or _PART * free_memory(setting.device) / _GIB) * 1024
    if (needs := foreseen(before, setting.size, setting.batch_size)) > room:
        return dict(skipped=f'needs about {needs / 1024:.2g} GiB, {room / 1024:.2g} are free')
    try:
        subject = _subject(model, kind, wanted, setting)
        spans = interleaved({'ms': subject.step}, wanted.repeats, setting.device, warm_ups=1)
        return dict(ms=spans['ms'], memory_mib=memory_of(subject))
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and (
            'allocate memory' not in str(error)
        ):
            raise
        return dict(skipped='memory cannot hold it')
    finally:
        subject = None
        gc.collect()
        if setting.device.type == 'cuda':
            torch.cuda.empty_cache()


def _subject(model: str, kind: str, wanted: Wanted, setting: Setting) -> Subject | TrainingStep:
    if model.endswith(CONFIGS) and setting.mode == 'train':
        return training_step(model, wanted.options, setting).tried()
    if model.endswith(CONFIGS):
        return of_config(model, wanted.options, setting)
    backbone = build_backbone(model, wanted.source, setting.size, out_indices='even4')
    if kind != 'global':
        blocks = range(backbone.depth)
        if kind == 'vitdet':
            blocks = [i for i in blocks if (i + 1) % max(-(-len(blocks) // 4), 2)]
        options = dict(window_size=WINDOW, window_block_indexes=tuple(blocks))
        if kind == 'vitdet':
            options |= dict(use_rel_pos=True, with_cls_token=False, norm='none')
        backbone = build_backbone(
            model, wanted.source, setting.size, out_indices='even4', **options
        )
    return of_backbone(backbone, setting, backbone.in_channels)


def free_memory(device: torch.device) -> float:
    """Bytes that a process may still take."""
    if device.type == 'cuda':
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free, group = [], Path('/sys/fs/cgroup')
    try:
        lines = Path('/proc/meminfo').read_text().splitlines()
        free += [1024 * int(each.split()[1]) for each in lines if each.startswith('MemAvailable')]
        most, used = ((group / f'memory.{name}').read_text() for name in ('max', 'current'))
        free += [int(most) - int(used)] if most.strip().isdigit() else []
    except OSError:  # another system
        pass
    return min(free, default=np.inf)


def foreseen(rows: Sequence[Row], size: Grid, batch_size: int) -> float:
    """MiB that a step will need, from smaller ones; 0 without any, `inf` if those were skipped.

    It grows with the batch, and with the pixels as between the last two sizes, at least linearly.
    """
    smaller = [row for row in rows if _pixels(row['size']) <= _pixels(size)]
    if any('skipped' in row for row in smaller):
        return np.inf
    same = [row for row in smaller if row['batch_size'] == batch_size]
    if not same:
        alike = [row for row in smaller if tuple(row['size']) == tuple(size)]
        last = alike[-1:] or [dict(memory_mib=0.0, batch_size=1)]
        return last[0]['memory_mib'] * batch_size / last[0]['batch_size']
    power = max(exponent(same[-2:], 'memory_mib') or 1.0, 1.0)
    return same[-1]['memory_mib'] * (_pixels(size) / _pixels(same[-1]['size'])) ** power


def exponent(
    rows: Sequence[Row], figure: str, of: Callable[[Row], float] | None = None
) -> float | None:
    """The power p of `figure` ~ pixels ** p (or another `of` a row): least squares of logarithms.

    `None` for fewer than two values.
    """
    of = of or (lambda row: _pixels(row['size']))
    points = [(of(row), row[figure]) for row in rows if row.get(figure)]
    if len({x for x, _ in points}) < 2:
        return None
    x, y = np.log(np.array(points, dtype=float)).T
    return float(np.polyfit(x, y, 1)[0])


def fits(rows: Sequence[Row]) -> list[Row]:
    """The exponents of time and memory: of the pixels for each batch, of the batch for each size.

    A row has `of` (`'pixels'` or `'batch'`), `at` (the batch or the size) and the two exponents.
    """
    found = []
    for model, kind in dict.fromkeys((row['model'], row['kind']) for row in rows):
        own = [row for row in rows if (row['model'], row['kind']) == (model, kind)]
        ways = (
            ('pixels', lambda row: f'batch {row["batch_size"]}', lambda row: _pixels(row['size'])),
            ('batch', lambda row: _spelled(row['size']), lambda row: row['batch_size']),
        )
        for of, at, value in ways:
            for place in dict.fromkeys(map(at, own)):
                some = [row for row in own if at(row) == place]
                time, memory = (exponent(some, key, value) for key in ('ms', 'memory_mib'))
                if time is not None:
                    found.append(
                        dict(model=model, kind=kind, of=of, at=place, time=time, memory=memory)
                    )
    return found


def _pixels(size: Sequence[int]) -> int:
    return size[0] * size[1]


def _spelled(size: Sequence[int]) -> str:
    return 'x'.join(map(str, size))


HEADING = table_head(['model', 'kind', 'size', 'batch', 'ms', 'memory MiB'])


def growth_row(row: Mapping[str, Any]) -> str:
    """A measured or skipped row in Markdown."""
    figures = ['skipped: ' + row['skipped'], ''] if 'skipped' in row else []
    figures = figures or [digits(row['ms']), digits(row['memory_mib'])]
    name = Path(row['model']).stem if row['model'].endswith(CONFIGS) else row['model']
    return table_row([name, row['kind'], _spelled(row['size']), str(row['batch_size']), *figures])


def fit_lines(found: Sequence[Row]) -> list[str]:
    """The exponents as a table in Markdown."""
    lines = [*table_head(['model', 'kind', 'grows with', 'at', 'time', 'memory'])]
    for row in found:
        name = Path(row['model']).stem if row['model'].endswith(CONFIGS) else row['model']
        memory = '' if row['memory'] is None else f'{row["memory"]:.2f}'
        lines.append(
            table_row([name, row['kind'], row['of'], row['at'], f'{row["time"]:.2f}', memory])
        )
    return lines
