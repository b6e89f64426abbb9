"""Your own COCO files: where they and their images lie."""

import contextlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vit_backbones.errors import some
from vit_backbones.own_data.absent import no_objects
from vit_backbones.own_data.common import Labels, counted, sizes_of
from vit_backbones.own_data.masks import MASKS, mask_files
from vit_backbones.own_data.mending import parsed_coco

# Where a folder has its COCO file of a split, the first that exists: COCO, Roboflow
_PLACES = (
    'annotations/instances_{}*.json',
    'annotations/{}*.json',
    'instances_{}*.json',
    '{}*.json',
    '{}*/*.json',
)
_TURNED = (
    '; a photo is shown as its EXIF orientation turns it: write the images anew without that '
    'orientation if the labels fit the stored pixels, else exchange width and height'
)
_RESIZED = ': the labels are in the pixels of other files; take those, or scale the labels'


def coco_labels(data: Path, val_data: Path | None, images: Path | None) -> dict[str, Labels]:
    """COCO files by split, without that of `val` where there is none.

    Args:
        data: A COCO file, or a folder with those of `train` and `val`.
        val_data: The same to validate on.
        images: Folder of the images, or of one folder per split; by default around the files.
    """
    return {
        split: Labels(path, partial(parsed_coco, path), partial(_place, path, images))
        for split, path in _paths(data, val_data).items()
    }


def _place(path: Path, images: Path | None, content: dict[str, Any]) -> Path:
    """The folder of the images of a file, all of which are there and of its sizes."""
    folder = _find_images(path, content['images'], images)
    check_sizes(path, content['images'], folder)
    return folder


def _paths(data: Path, val_data: Path | None) -> dict[str, Path]:
    """The COCO file of each split, without that of `val` where there is none."""
    paths = {'train': _find(data, 'train')}
    if val_data is not None:
        paths['val'] = _find(val_data, 'val')
    elif data.is_dir() and (found := _find_in(data, 'val')):
        paths['val'] = found
    return paths


def _find(data: Path, split: str) -> Path:
    """The COCO file of a split."""
    if data.is_file():
        return data
    if not data.is_dir():
        raise FileNotFoundError(f'{str(data)!r} does not exist (looked from {Path.cwd()})')
    found = _find_in(data, split)
    if found:
        return found
    every = _files_in(data)
    if len(every) == 1:
        return every[0]
    if not every:
        raise ValueError(no_objects(data, sum(len(mask_files(data / name)) for name in MASKS)))
    raise ValueError(
        f'folder {str(data)!r} has {len(every)} .json files '
        f'({some(path.relative_to(data) for path in every)}), and none is called {split}.json or '
        f'instances_{split}.json: name the file itself'
    )


def coco_file_in(data: Path) -> Path | None:
    """A COCO file in a folder, by its place; a single other JSON counts if it is one."""
    placed = [path for place in _PLACES for path in data.glob(place.format('train'))]
    if placed:
        return placed[0]
    every = _files_in(data)
    with contextlib.suppress(OSError, ValueError):
        if len(every) == 1 and parsed_coco(every[0]):
            return every[0]
    return None


def _files_in(data: Path) -> list[Path]:
    return sorted([*data.glob('*.json'), *data.glob('annotations/*.json')])


def _find_in(data: Path, split: str) -> Path | None:
    for place in _PLACES:
        found = sorted(data.glob(place.format(split)))
        if len(found) > 1:
            raise ValueError(
                f'folder {str(data)!r} has {len(found)} COCO files of {split!r} '
                f'({", ".join(path.name for path in found[:3])}): name the file itself'
            )
        if found:
            return found[0]
    return None


def _find_images(path: Path, entries: Sequence[dict], images: Path | None) -> Path:
    """The folder that holds the images of a COCO file, all of them."""
    split = path.stem.rsplit('_', 1)[-1]  # instances_train2017: train2017
    around = [path.parent, path.parent.parent] if images is None else [images]
    subfolders = ('', 'images', split, f'images/{split}') if images is None else ('', split)
    places = [(base / sub).absolute() for base in around for sub in subfolders]
    first = entries[0]['file_name']
    folder = next((place for place in places if (place / first).is_file()), None)
    if folder is None:
        above = ' and the one above' if images is None else ''
        raise FileNotFoundError(
            f'the {counted(len(entries), "image")} of {str(path)!r}, the first of which is '
            f'{first!r}, were not found in {around[0].absolute()}{above}, nor in '
            f'{", ".join(f"{sub}/" for sub in subfolders[1:])} there: name their folder by '
            f'images=...'
        )
    missing = [e['file_name'] for e in entries if not (folder / e['file_name']).is_file()]
    if missing:
        raise FileNotFoundError(
            f'{len(missing)} of {counted(len(entries), "image")} of {str(path)!r} are not in '
            f'{folder}, the first is {missing[0]!r}: put them there, or remove them from the file'
        )
    return folder


def check_sizes(path: Path, entries: Sequence[dict[str, Any]], folder: Path) -> None:
    """Refuse images of another size than the file at `path` gives them, as they are shown."""
    read = sizes_of([folder / each['file_name'] for each in entries])
    pairs = zip(entries, read, strict=True)
    other = [(e, s) for e, s in pairs if s and s != (e['height'], e['width'])]
    if not other:
        return
    first, (height, width) = other[0]
    turned = [each for each, size in other if size == (each['width'], each['height'])]
    names = ', '.join(each['file_name'] for each, _ in other[:3]) + ', ...' * (len(other) > 3)
    raise ValueError(
        f'{len(other)} of {counted(len(entries), "image")} of {str(path)!r} have another size than '
        f'it says ({names}): the first is {width}x{height}, not {first["width"]}x{first["height"]}'
        + (_TURNED if len(turned) == len(other) else _RESIZED)
    )
