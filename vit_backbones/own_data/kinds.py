"""The format of your own data: COCO, YOLO or Pascal VOC for objects, else a folder of masks."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

from vit_backbones.own_data.class_names import CLASSES
from vit_backbones.own_data.coco import coco_file_in, coco_labels
from vit_backbones.own_data.common import Labels
from vit_backbones.own_data.masks import MASKS, OBJECTS_GO_TO, mask_files
from vit_backbones.own_data.voc import voc_labels
from vit_backbones.own_data.voc_layout import xml_files
from vit_backbones.own_data.yolo import yolo_labels

_YAML = ('.yaml', '.yml')
_USUAL = ('data.yaml', 'data.yml', 'dataset.yaml')
_KEYS = {'names', 'train', 'val'}  # of a data.yaml, one at least


class Kind(NamedTuple):
    """A format, what to read, and a file that shows it."""

    name: str
    path: Path
    shown: Path


def labels_of(data: Path, val_data: Path | None, images: Path | None) -> dict[str, Labels]:
    """Objects of any format by split, without those of `val` where there are none.

    Args:
        data: A file or a folder.
        val_data: One of the same format, to validate on.
        images: Folder of the images that COCO files name.
    """
    kind = kind_of(data)
    other = None if val_data is None else kind_of(val_data)
    if other is not None and other.name != kind.name:
        raise ValueError(
            f'{str(data)!r} is {kind.name}, and {str(val_data)!r} is {other.name}: give both in '
            f'one format'
        )
    if kind.name == 'COCO':
        return coco_labels(data, val_data, images)
    if images is not None:
        raise ValueError(
            f'images=... is for COCO files, and {str(data)!r} is {kind.name}, whose images have '
            f'their place: leave it out'
        )
    read = yolo_labels if kind.name == 'YOLO' else voc_labels
    return read(kind.path, other and other.path)


def kind_of(data: Path) -> Kind:
    """The one format of objects in a file or folder; COCO if there is none."""
    if data.is_file():
        if data.suffix.lower() in ('.xml', '.txt'):
            raise ValueError(
                f'{str(data)!r} are the labels of one image, or a list: name the folder of all, or '
                f'a data.yaml'
            )
        yolo = data.suffix.lower() in _YAML
        return Kind('YOLO' if yolo else 'COCO', data, data)
    found = list(_found_in(data)) if data.is_dir() else []
    if len(found) > 1:
        shown = ' and '.join(f'{each.name} ({each.shown.relative_to(data)})' for each in found)
        raise ValueError(
            f'{str(data)!r} holds {len(found)} kinds of data, {shown}: name the one .json or .yaml '
            f'file, or move the others away'
        )
    return found[0] if found else Kind('COCO', data, data)


def check_masks(data: Path) -> None:
    """Refuse a folder of objects where masks are needed, and several folders of masks."""
    if not data.is_dir():
        return
    folders = [name for name in MASKS if mask_files(data / name)]
    if len(folders) > 1:
        raise ValueError(
            f'{str(data)!r} holds {len(folders)} kinds of masks, in {" and ".join(folders)}: keep '
            f'one of these folders'
        )
    if not folders and (found := list(_found_in(data))):
        shown = ' and '.join(f'{each.name} ({each.shown.relative_to(data)})' for each in found)
        raise ValueError(
            f"{str(data)!r} is {shown}, objects for mmdet's configs, such as those of "
            f"{OBJECTS_GO_TO}; mmseg's configs take a folder of images and masks"
        )


def unused_in(data: Path, *, has_masks: bool) -> list[str]:
    """Labels that a folder holds beside those that a config takes, such as `x.json (COCO)`.

    Args:
        data: A folder of objects or, with `has_masks`, of masks.
        has_masks: Masks are taken, and objects are not.
    """
    if not data.is_dir():
        return []
    masks = [name for name in MASKS if mask_files(data / name)]
    if not has_masks:
        return [f'{name}/ (masks)' for name in masks]
    found = []
    with contextlib.suppress(OSError, ValueError):  # what is wrong with them does not matter
        found = list(_found_in(data))
    return [f'{_place(data, each)} ({each.name})' for each in found]


def _place(data: Path, kind: Kind) -> str:
    """The file that shows a kind, or the folder of the files of one per image."""
    shown = kind.shown.relative_to(data)
    if kind.name == 'Pascal VOC' and len(shown.parts) > 1:
        shown = shown.parents[-2]
    return f'{shown}/' if (data / shown).is_dir() else str(shown)


def _found_in(data: Path) -> Iterator[Kind]:
    if (path := _yolo_in(data)) is not None:
        shown = path if path.is_file() else data / 'labels'
        yield Kind('YOLO', path, shown)
    if files := xml_files(data):
        yield Kind('Pascal VOC', data, files[0])
    if (path := coco_file_in(data)) is not None:
        yield Kind('COCO', data, path)


def _yolo_in(data: Path) -> Path | None:
    """A `data.yaml`, or the folder itself if its labels are those of YOLO."""
    files = sorted(p for p in data.iterdir() if p.suffix.lower() in _YAML and p.is_file())
    usual = [path for path in files if path.name.lower() in _USUAL]
    chosen = usual or [path for path in files if _is_yolo(path)]
    if len(chosen) > 1:
        raise ValueError(
            f'{str(data)!r} has {len(chosen)} files of YOLO '
            f'({", ".join(path.name for path in chosen[:3])}): name the file itself'
        )
    if chosen:
        return chosen[0]
    labels = data / 'labels'
    written = {p for p in labels.rglob('*') if p.suffix.lower() == '.txt'}
    return data if written - {data / name for name in CLASSES} else None


def _is_yolo(path: Path) -> bool:
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8-sig'))
    except (RecursionError, ValueError, yaml.YAMLError):
        return False
    return isinstance(content, dict) and not _KEYS.isdisjoint(map(str, content))
