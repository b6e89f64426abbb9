"""Checks of the files that mmseg's datasets list; mmseg opens them only when it takes them."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from vit_backbones.checks.findings import Finding, error, warning


def lists_label_maps(dataset: Any) -> bool:
    """Whether a dataset, not in wrappers, is one of mmseg with files on this disk."""
    backend = (getattr(dataset, 'backend_args', None) or {}).get('backend', 'local')
    return hasattr(dataset, 'reduce_zero_label') and backend == 'local'


def missing_findings(
    dataset: Any, place: str, *, loads_labels: bool, skips: bool = False
) -> Iterator[Finding]:
    """Images and label maps of a dataset of mmseg that do not exist.

    With `skips`, as a training does, those are an error only if no file is left.
    """
    if not lists_label_maps(dataset) or not len(dataset):
        return
    entries = [dataset.get_data_info(index) for index in range(len(dataset))]
    kinds = {'img_path': ('images', 'img_suffix')}
    if loads_labels:
        kinds['seg_map_path'] = 'label maps', 'seg_map_suffix'
    for key, (what, option) in kinds.items():
        paths = [str(each[key]) for each in entries if '://' not in str(each.get(key, '://'))]
        missing = _missing(paths)
        if not missing:
            continue
        line = (
            f'{place}: {len(missing)} of {len(paths)} {what} do not exist, the first is '
            f'{missing[0]!r}; {_there(missing[0])}'
        )
        if skips and len(missing) < len(paths):
            yield warning(f'{line}; a training skips these: add or remove them')
        else:
            yield error(f'{line}: {_fix(dataset, option)}')


def _missing(paths: Sequence[str]) -> list[str]:
    """Those of some paths that do not exist; each folder is listed once."""
    listed: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in listed:
            listed[folder] = set(_names(folder))
        if name not in listed[folder] and not os.path.exists(path):  # in capitals, as on macOS
            missing.append(path)
    return missing


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder or '.')
    except OSError:
        return []


def _there(path: str) -> str:
    """What the folder of a missing file holds."""
    folder = os.path.dirname(path)
    names = sorted(name for name in _names(folder) if name[0] != '.')
    if not os.path.isdir(folder):
        return f'there is no folder {folder!r}'
    return f'the folder holds {len(names)} files, such as {names[0]!r}' if names else 'it is empty'


def _fix(dataset: Any, option: str) -> str:
    listed = os.path.isfile(dataset.ann_file or '')
    names = f'; {dataset.ann_file!r} lists names without suffix' if listed else ''
    return f'add them, or correct {option}={getattr(dataset, option, None)!r} or data_prefix{names}'
