"""Datasets without an image: the names that they look for, and those that there are."""

import copy
import itertools
import os
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vit_backbones.errors import counted, some
from vit_backbones.files import json_of
from vit_backbones.terminal import quiet_prints

_SHOWN = 5
_FROM_MMENGINE = '_serialize_data'  # fails with a text of NumPy's


def emptied_dataset(raised: BaseException | None) -> Any | None:
    """The dataset that an exception comes from because it has no image, `None` for another one."""
    while raised is not None:
        for frame, _ in traceback.walk_tb(raised.__traceback__):
            if frame.f_code.co_name == _FROM_MMENGINE:
                dataset = frame.f_locals.get('self')
                return dataset if getattr(dataset, 'data_list', None) == [] else None
        # One that is raised from another has a text of its own
        raised = None if raised.__suppress_context__ else raised.__context__
    return None


def why_empty(dataset: Any) -> str:
    """One line: where a dataset without images looked for some, what for, and what is there."""
    name, place = type(dataset).__name__, getattr(dataset, 'ann_file', None)
    listed, kept = _listed(dataset)
    indices = getattr(dataset, '_indices', None)
    if listed:
        lacks = _after_filter(dataset, listed)
        if kept and indices is not None:
            lacks = f'indices={indices} keeps none of {kept}'
    elif hasattr(dataset, 'img_suffix') and not os.path.isfile(place or ''):
        lacks = _without_suffix(dataset)
    else:
        lacks = f'ann_file={place!r} lists none: fill it, or set another'
    return f'{name} has no image: {lacks}'


def _listed(dataset: Any) -> tuple[list[dict[str, Any]], int]:
    """Entries before the filters, and the number after them, before `indices`."""
    again = copy.copy(dataset)
    try:
        with quiet_prints():
            again.data_list = listed = list(again.load_data_list())
            return listed, len(again.filter_data())
    except Exception:  # each class has its own; the caller has one reason already
        return [], 0


def _without_suffix(dataset: Any) -> str:
    folder, suffix = str((dataset.data_prefix or {}).get('img_path')), dataset.img_suffix
    names = list(itertools.islice(_files(Path(folder)), 100_000))
    wanted = f'no file in {folder!r} ends in {suffix!r} (img_suffix)'
    if not names:
        return f'{wanted}, nor in anything else: set data_root and data_prefix to your images'
    ends = Counter(os.path.splitext(name)[1] for name in names).most_common(_SHOWN)
    held = ', '.join(f'{number} {end or "without suffix"}' for end, number in ends)
    close = next((end for end, _ in ends if end.lower() == suffix.lower()), ends[0][0])
    return (
        f'{wanted}, and it holds {held}, such as {min(names)!r}: set img_suffix={close!r}, or '
        f'data_prefix to another folder'
    )


def _files(folder: Path) -> Iterator[str]:
    for path in folder.rglob('*'):
        if path.is_file() and path.name[0] != '.':
            yield path.relative_to(folder).as_posix()


def _after_filter(dataset: Any, listed: list[dict[str, Any]]) -> str:
    """Why none of the entries of an annotation file is kept."""
    place, given = (
        getattr(dataset, 'ann_file', None),
        dict(getattr(dataset, 'filter_cfg', None) or {}),
    )
    of, one = f'{counted(len(listed), "image")} of {place!r}', len(listed) == 1
    classes = list((dataset.metainfo or {}).get('classes') or ())
    if getattr(dataset, 'cat_ids', None) == []:
        return (
            f'the categories of {place!r} are {some(_categories(place), _SHOWN)}, and '
            f'metainfo.classes is {some(classes, _SHOWN)}: spell them alike'
        )
    smallest = given.get('min_size', 0)
    sizes = [
        min(each['width'], each['height']) for each in listed if {'width', 'height'} <= {*each}
    ]
    if sizes and max(sizes) < smallest:
        return (
            f'filter_cfg.min_size={smallest}, and the shorter {"side" if one else "sides"} '
            f'of the {of} {"is" if one else "are"} at most {max(sizes)} pixels: lower it'
        )
    if given.get('filter_empty_gt') and not any(each.get('instances') for each in listed):
        return (
            f'filter_cfg.filter_empty_gt=True, and the {of} {"has" if one else "have"} no '
            f'object of the classes {some(classes, _SHOWN)} with an area: correct the annotations '
            f'or the classes, or set it to False'
        )
    return f'filter_cfg={given} keeps none of the {of}: change it'


def _categories(path: str) -> list[str]:
    try:
        content = json_of(Path(path).read_bytes(), path)
        return [str(each['name']) for each in content['categories']]
    except (OSError, ValueError, KeyError, TypeError):
        return []
