"""Checks of the files that mmseg's datasets list; mmseg opens them only when it takes them."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from vit_backbones.checks.findings import Finding, error, warning


def lists_label_maps(dataset: Any) -> bool:
    """Whether a dataset, not in wrappers, is one of mmseg with files on this disk."""
    backend = (getattr(dataset, 'backend_args', None) or {}).get('backend', 'local')
    return hasattr(dataset, 'reduce_zero_label') and backend == 'local'


def missing_findings(dataset: Any, split: str, *, loads_labels: bool) -> Iterator[Finding]:
    """Images and label maps of a dataset of mmseg that do not exist.

    A training skips those of `'train'` as long as some are left.
    """
    if not lists_label_maps(dataset) or not len(dataset):
        return
    entries = [dataset.get_data_info(index) for index in range(len(dataset))]
    kinds = {'img_path': ('images', 'img_suffix')}
    if loads_labels:
        kinds['seg_map_path'] = 'label maps', 'seg_map_suffix'
    for key, (what, option) in kinds.items():
        paths = [path for each in entries if '://' not in (path := str(each.get(key, '://')))]
        missing = _missing(paths)
        if missing:
            is_skipped = split == 'train' and len(missing) < len(paths)
            line = (
                f'{split}_dataloader.dataset: {len(missing)} of {len(paths)} {what} do not exist, '
                f'the first is {missing[0]!r}; {_there(missing[0])}'
            )
            yield (
                warning(f'{line}; a training skips these: add or remove them')
                if is_skipped
                else error(f'{line}: {_fix(dataset, option)}')
            )


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
    suffix, other = getattr(dataset, option, None), ''
    if os.path.isfile(dataset.ann_file or ''):
        other = f'; {dataset.ann_file!r} lists names, to which mmseg adds it'
    return f'add them, or set {option}={suffix!r} and data_prefix to what is there{other}'
