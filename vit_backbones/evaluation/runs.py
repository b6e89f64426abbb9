"""Work dirs of `tools/train.py`: names, config, checkpoint and logs."""

import contextlib
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_backbones.errors import one_line
from vit_backbones.files import json_of
from vit_backbones.pictures.curves import History
from vit_backbones.training.last_checkpoint import find_last_checkpoint

_LOGS = '*/vis_data/scalars.json'  # one for each start, in folders named by the time
_NO_RUN = f'{{!r}} is no work dir of tools/train.py: it holds no config, record.json or {_LOGS}'


class Run(NamedTuple):
    """A work dir, and its name for tables, legends and files, which no other run has."""

    path: Path
    name: str


def find_runs(
    work_dirs: Sequence[str | Path], leave_out: Callable[[str], object] = lambda reason: None
) -> list[Run]:
    """Name work dirs by their folder, or by their path where folders share a name.

    Args:
        work_dirs: Folders that `tools/train.py` wrote. Among several, other files and folders are
            left out: a pattern finds them too.
        leave_out: Called with the reason for each of these.

    Raises:
        FileNotFoundError: If one does not exist.
        ValueError: If none is a work dir, or one is given twice.
    """
    paths = []
    for path in map(Path, work_dirs):
        if not path.exists():
            raise FileNotFoundError(f'work dir {str(path)!r} does not exist (from {Path.cwd()})')
        if any((*path.glob(_LOGS), *path.glob('record.json'), *path.glob('*.py'))):
            paths.append(path)
            continue
        if len(work_dirs) == 1:
            raise ValueError(_NO_RUN.format(str(path)))
        leave_out(_NO_RUN.format(str(path)))
    if not paths:
        raise ValueError(f'none of these {len(work_dirs)} is a work dir of tools/train.py')
    whole = [path.resolve() for path in paths]
    if len(set(whole)) < len(whole):
        raise ValueError('a work dir is given twice')
    names = [path.name for path in whole]
    if len(set(names)) < len(names):
        root = os.path.commonpath(whole)
        names = [path.relative_to(root).as_posix().replace('/', '_') for path in whole]
    return [Run(path, name) for path, name in zip(paths, names, strict=True)]


def config_of(run: Run) -> Path:
    """The config of a run: the only one, or the one that `record.json` names."""
    files = sorted(run.path.glob('*.py'))
    named = Path(str(_record(run).get('config'))).name
    chosen = files if len(files) == 1 else [path for path in files if path.name == named]
    if not files:
        raise ValueError(f'{run.path} holds no config (*.py), as tools/train.py leaves one')
    if not chosen:
        raise ValueError(
            f'{run.path} holds {len(files)} configs ({", ".join(path.name for path in files)}): '
            f'leave there the one that it was trained with'
        )
    return chosen[0]


def checkpoint_of(run: Run) -> Path:
    """The newest whole checkpoint named `best_...`, else the last one."""
    best = [path for path in run.path.glob('best_*.pth') if zipfile.is_zipfile(path)]
    found = max(best, key=lambda path: path.stat().st_mtime_ns, default=None)
    found = found or find_last_checkpoint(run.path)
    if found is None:
        raise ValueError(f'{run.path} holds no whole checkpoint (*.pth): give checkpoint=FILE')
    return found


def read_history(run: Run) -> History:
    """Join the logs of all starts of a run with the validations of `record.json`.

    A `ValueError` if these files hold something else.
    """
    try:
        return _joined(run)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f'{run.path}: its record.json or {_LOGS} is none of tools/train.py '
            f'({type(error).__name__}: {one_line(error)})'
        ) from error


def _joined(run: Run) -> History:
    train: list[dict[str, Any]] = []
    validated: list[dict[str, Any]] = []
    for log in sorted(run.path.glob(_LOGS)):
        lines = list(_lines(log))
        new = [line for line in lines if 'iter' in line and 'loss' in line]
        if not new:
            continue
        # A resume repeats the iterations after its checkpoint
        train = [line for line in train if line['step'] < new[0]['step']] + new
        length = _epoch_length(train)
        validated = [line for line in validated if line['iter'] < new[0]['step']]
        validated += [_validation(line, length) for line in lines if 'iter' not in line]
    recorded = [each for each in _record(run).get('validations', ()) if 'iter' in each]
    reach = max((validated, recorded), key=lambda each: each[-1]['iter'] if each else -1)
    entries = recorded if recorded and recorded[-1]['iter'] == reach[-1]['iter'] else reach
    whole = next((each for each in recorded if each.get('epoch')), None)
    length = whole['iter'] / whole['epoch'] if whole and not train else _epoch_length(train)
    steps, losses = ([line[key] for line in train] for key in ('step', 'loss'))
    return History(np.array(steps), np.array(losses), entries, length)


def _lines(log: Path) -> list[dict[str, Any]]:
    """Read the lines of a log, without one that a killed run left half written."""
    lines = []
    for line in log.read_text(encoding='utf-8', errors='replace').splitlines():
        with contextlib.suppress(ValueError):
            lines.append(json_of(line, log, dict))
    return [line for line in lines if 'step' in line]


def _epoch_length(lines: Sequence[dict[str, Any]]) -> float | None:
    """Iterations per epoch: MMEngine logs the same ones in each."""
    first: dict[int, int] = {}
    for line in lines:
        if 'epoch' in line:
            first.setdefault(line['epoch'], line['step'])
    if not first:
        return None
    lengths = [first[epoch + 1] - step for epoch, step in first.items() if epoch + 1 in first]
    return float(np.median(lengths)) if lengths else lines[-1]['step'] / lines[-1]['epoch']


def _validation(line: dict[str, Any], epoch_length: float | None) -> dict[str, Any]:
    """A logged validation; its `step` is an epoch if the run counts epochs."""
    others = ('step', 'time', 'data_time')
    metrics = {name: value for name, value in line.items() if name not in others}
    return {'iter': round(line['step'] * (epoch_length or 1)), 'metrics': metrics}


def _record(run: Run) -> dict[str, Any]:
    path = run.path / 'record.json'
    if not path.is_file():
        return {}
    return json_of(path.read_bytes(), path, dict)
