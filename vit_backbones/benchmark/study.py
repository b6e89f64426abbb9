"""Recipes trained with several seeds: a plan, its work dirs, and means with 95 % intervals."""

import json
import shlex
import statistics
from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from scipy.stats import norm, t

from vit_backbones.benchmark.results import WHOLE, Row, of_test
from vit_backbones.files import json_of, mark

RECORD = 'test.json'
_LEVEL = 0.975  # two-sided 95 %
_KEYS = {'config': str, 'options': list, 'test_options': list, 'seeds': int}


class Entry(NamedTuple):
    """A row of a plan: a recipe, how it is trained and tested, and how often.

    Rows that differ only in `test_options` share their trainings.

    Attributes:
        config: Path of a config, or `vit_backbones::NAME.py`.
        options: More arguments of `tools/train.py`.
        test_options: More arguments of `tools/test.py`.
        seeds: Trainings, with the seeds 0, 1, ...
        shown: What else the plan says of the row; it is copied into the results.
    """

    config: str
    options: list[str]
    test_options: list[str]
    seeds: int
    shown: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the folder: the config's, and a digest of the options."""
        return f'{Path(self.config).stem}-{_digest([self.config, self.options])}'

    def folder(self, root: Path, seed: int) -> Path:
        """Work dir of a training."""
        return root / self.name / f'seed_{seed}'

    def tested(self, root: Path, seed: int) -> Path:
        """Work dir of its test."""
        end = f'-{_digest(self.test_options)}' if self.test_options else ''
        return self.folder(root, seed) / f'test{end}'


def _digest(options: list[Any]) -> str:
    return mark(json.dumps(options))[:8]


def read_plan(path: Path, only: Sequence[str] = ()) -> list[Entry]:
    """The rows of a plan, JSON: a list of objects with the keys of `Entry`, `config` at least.

    Args:
        only: Patterns of which a row's folder or config matches one; none takes all rows.

    Raises:
        OSError, ValueError: A wrong file, key or value, or no row left.
    """
    rows = json_of(path.read_bytes(), path, list)
    entries = [_entry(row, f'{path}: row {number}') for number, row in enumerate(rows)]
    kept = [each for each in entries if not only or any(_matches(each, one) for one in only)]
    if not kept:
        known = ', '.join(dict.fromkeys(Path(each.config).stem for each in entries)) or 'no row'
        raise ValueError(f'{path}: no row matches {" ".join(only)}; it has {known}')
    return kept


def _entry(row: Any, where: str) -> Entry:
    if not isinstance(row, dict) or 'config' not in row:
        raise ValueError(f'{where} must be an object with a "config", got {json.dumps(row)[:80]}')
    values = dict(options=[], test_options=[], seeds=1) | row
    for key in row.keys() - _KEYS.keys():
        if meant := get_close_matches(key, _KEYS, 1, cutoff=0.8):
            raise ValueError(f'{where}: "{key}" is near to "{meant[0]}": write that, or rename it')
    for key, kind in _KEYS.items():
        if not isinstance(values[key], kind) or isinstance(values[key], bool):
            name = {str: 'a text', list: 'a list of texts', int: 'a number'}[kind]
            raise ValueError(f'{where}: "{key}" must be {name}, got {json.dumps(values[key])}')
    for key in ('options', 'test_options'):
        if not all(isinstance(each, str) for each in values[key]):
            raise ValueError(f'{where}: "{key}" must be a list of texts, got {values[key]}')
    if values['seeds'] < 1:
        raise ValueError(f'{where}: "seeds" must be at least 1, got {values["seeds"]}')
    shown = {key: each for key, each in row.items() if key not in _KEYS}
    return Entry(*(values[key] for key in _KEYS), shown)


def check_configs(entries: Sequence[Entry], path: Path) -> None:
    """Refuse rows of the plan in `path` whose config is not there, before anything is trained."""
    for each in entries:
        if '::' not in each.config and not Path(each.config).is_file():
            raise ValueError(
                f'{path}: config {each.config!r} does not exist (looked from {Path.cwd()})'
            )


def _matches(entry: Entry, pattern: str) -> bool:
    return any(fnmatch(name, pattern) for name in (entry.name, Path(entry.config).stem))


def row_of(entry: Entry, root: Path) -> dict[str, Any] | None:
    """The result of the trainings of a row that are there, `None` without any.

    Keys: those of the plan; `metric`, `value` (mean over seeds, 0 to 1), `interval` (its 95 %
    interval over seeds and images), `seeds`, `values` and `errors` (standard error over images) of
    each; `minutes` (median), `parameters`, `peak_memory_mib`, `images_per_second`, `hardware` and
    `date`, as in a work dir.

    Raises:
        ValueError: A test has none of the main metrics.
    """
    seeds = [seed for seed in range(entry.seeds) if (entry.tested(root, seed) / RECORD).exists()]
    if not seeds:
        return None
    runs = [_main(entry, entry.folder(root, seed), entry.tested(root, seed)) for seed in seeds]
    values, errors = ([run.get(key) for run in runs] for key in ('value', 'error'))
    row = {key: each for key, each in runs[-1].items() if key != 'error'} | dict(
        config=entry.config,
        options=shlex.join(entry.options),
        test_options=shlex.join(entry.test_options),
        value=statistics.fmean(values),
        interval=None if None in errors else interval(values, errors),
        seeds=len(runs),
        values=values,
        errors=errors,
        minutes=statistics.median(run['minutes'] for run in runs),
    )
    return row | entry.shown


def _main(entry: Entry, folder: Path, tested: Path) -> Row:
    """A test's value of the metric that the plan names, else of the first main one."""
    wanted = entry.shown.get('metric')
    rows = [row for row in of_test(folder, tested) if wanted in (None, row['metric'])]
    if not rows:
        raise ValueError(f'{tested}/{RECORD} has no {wanted or ", ".join(WHOLE)}')
    return rows[0]


def interval(values: Sequence[float], errors: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a mean over seeds and images.

    Its half is the root of two squares: 1.96 times the mean standard error over images, which all
    seeds share, and for two seeds or more Student's t times their standard error.
    """
    mean = statistics.fmean(values)
    half = norm.ppf(_LEVEL) * statistics.fmean(errors)
    if len(values) > 1:
        spread = statistics.stdev(values) / len(values) ** 0.5
        half = (half**2 + (t.ppf(_LEVEL, len(values) - 1) * spread) ** 2) ** 0.5
    return float(mean - half), float(mean + half)


def finished(entries: Sequence[Entry], root: Path) -> list[Row]:
    """The rows of a plan with any result."""
    return [row for row in (row_of(each, root) for each in entries) if row is not None]
