"""Checks of the files that datasets list, which they open only when they take them."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from vit_backbones.checks.findings import Finding, error, warning
from vit_backbones.errors import some

_FEW = 50  # images of an mmdet dataset that are looked for: to list all entries takes seconds
_READ_BY = {'img_path': 'LoadImageFromFile', 'seg_map_path': 'LoadAnnotations'}


def named_keys(dataset: Any, loaders: Sequence[Any]) -> set[str]:
    """Keys of a dataset's entries whose files `missing_findings` looks for, one by one."""
    return _opened(loaders) if _is_mmseg(dataset) else set()


def _opened(loaders: Sequence[Any]) -> set[str]:
    """Keys that name files on this disk, which `loaders` open."""
    local = {
        type(each).__name__
        for each in loaders
        if (getattr(each, 'backend_args', None) or {}).get('backend', 'local') == 'local'
    }
    return {key for key, name in _READ_BY.items() if name in local}


def missing_findings(
    dataset: Any, place: str, loaders: Sequence[Any], *, skips: bool = False
) -> Iterator[Finding]:
    """Images and label maps of a dataset of mmseg that do not exist.

    With `skips`, as a training does, those are an error only if no file is left; this is looked
    for in other datasets too, in a few entries.
    """
    is_whole, number = _is_mmseg(dataset), len(dataset)
    keys = named_keys(dataset, loaders)
    if skips and not is_whole:
        keys = _opened(loaders) & {'img_path'}
    indices = range(0, number, 1 if is_whole else max(number // _FEW, 1)) if keys else ()
    entries = [dataset.get_data_info(index) for index in indices]
    yield from _no_files(dataset, place)
    for key, what in (('img_path', 'images'), ('seg_map_path', 'label maps')):
        paths = [str(each[key]) for each in entries if key in keys and each.get(key)]
        missing = _missing([path for path in paths if '://' not in path])
        if not missing or (len(missing) < len(paths) and not is_whole):
            continue
        line = (
            f'{place}: {len(missing)} of {len(paths)} {what}{" tried" * (not is_whole)} do not '
            f'exist, the first is {missing[0]!r}; {_there(missing[0])}'
        )
        if skips and len(missing) < len(paths):
            yield warning(f'{line}; a training skips these: add or remove them')
        else:
            yield error(f'{line}: {_fix(dataset, key)}')


def _no_files(dataset: Any, place: str) -> Iterator[Finding]:
    """Entries of a folder of images that no dataset of mmseg lists: dangling links, folders."""
    folder = (getattr(dataset, 'data_prefix', None) or {}).get('img_path')
    suffix = getattr(dataset, 'img_suffix', None)
    if not folder or not suffix or os.path.isfile(getattr(dataset, 'ann_file', '') or ''):
        return
    found = [
        entry.path
        for base, _, _ in os.walk(folder)
        for entry in os.scandir(base)
        if entry.name.endswith(suffix) and entry.name[0] != '.' and not entry.is_file()
    ]
    if found:
        yield warning(
            f'{place}: of the entries of {folder!r} that end in {suffix}, {len(found)} are '
            f'folders, devices or links to nothing, and left out ({some(sorted(found))}): repair '
            f'or remove them'
        )


def _is_mmseg(dataset: Any) -> bool:
    return hasattr(dataset, 'reduce_zero_label')


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
    more = f' and {len(names) - 1} more' if len(names) > 1 else ''
    return f'the folder holds {names[0]!r}{more}' if names else 'the folder is empty'


def _fix(dataset: Any, key: str) -> str:
    if not _is_mmseg(dataset):
        return 'add them, or correct data_root and data_prefix'
    option = 'img_suffix' if key == 'img_path' else 'seg_map_suffix'
    listed = os.path.isfile(dataset.ann_file or '')
    names = f'; {dataset.ann_file!r} lists names without suffix' if listed else ''
    return f'add them, or correct {option}={getattr(dataset, option, None)!r} or data_prefix{names}'
