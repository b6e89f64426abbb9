"""Folders of YOLO: the names of `data.yaml`, and the images of each split."""

from collections.abc import Iterator, Mapping
from os.path import normpath
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from vit_backbones.bits import check_regular
from vit_backbones.errors import counted
from vit_backbones.images import SUFFIXES, find_images
from vit_backbones.own_data.class_names import CLASSES, class_names
from vit_backbones.own_data.common import SPLITS, text_lines

_EXAMPLE = 'names: [cat, dog]'
_ABOVE = '../'


class Layout(NamedTuple):
    """Absolute images by split, names by the numbers of labels, and lines on what is odd.

    `folders` has the entries of `images` that are folders, by split; `None` beside lists of images.
    """

    path: Path
    names: dict[int, str]
    images: dict[str, list[Path]]
    folders: dict[str, list[Path]] | None
    warnings: list[str]


def layout_of(path: Path) -> Layout:
    """The layout that a `data.yaml` gives, or a folder of `images`, `labels` and `classes.txt`."""
    return _of_folder(path) if path.is_dir() else _of_yaml(path)


def _of_yaml(path: Path) -> Layout:
    content, warnings = _content(path), []
    names = _names(path, content)
    root = path.parent
    if (given := content.get('path')) is not None:
        root = path.parent / _text(path, 'path', given)
        if not root.is_dir():
            warnings.append(f"{path}: path {given!r} does not exist, so the file's folder counts")
            root = path.parent
    images, folders = {}, {}
    for split in ('train', 'val'):
        if content.get(split) is not None:
            places = list(_places(path, root, split, content[split]))
            images[split] = list(dict.fromkeys(each for p in places for each in _listed(p, root)))
            folders[split] = places
    if 'train' not in images:
        raise ValueError(f'{str(path)!r} names no images to train on: write train: images/train')
    whole = all(place.is_dir() for places in folders.values() for place in places)
    return Layout(path, names, images, folders if whole else None, warnings)


def _of_folder(data: Path) -> Layout:
    """A layout without `data.yaml`."""
    listed = next((path for name in CLASSES if (path := data / name).is_file()), None)
    if listed is None:
        raise FileNotFoundError(
            f'{str(data)!r} has labels of YOLO and no names of classes: write {_EXAMPLE} and '
            f'train: images into data.yaml there, or a name per line into classes.txt'
        )
    names = dict(enumerate(class_names(listed)))
    base = (data / 'images').absolute()
    if not base.is_dir():
        raise FileNotFoundError(f'{str(data)!r} has labels of YOLO, but no folder images')
    found = {s: next((p for n in SPLITS[s] if (p := base / n).is_dir()), None) for s in SPLITS}
    if found['val'] and not found['train']:
        raise FileNotFoundError(f'{str(base)!r} has {found["val"].name}, but no train')
    folders = {split: [place] for split, place in found.items() if place} or {'train': [base]}
    images = {split: _listed(places[0], base) for split, places in folders.items()}
    return Layout(data, names, images, folders, [])


def _content(path: Path) -> dict[str, Any]:
    try:
        check_regular(path)
        content = yaml.safe_load(path.read_text(encoding='utf-8-sig'))
    except yaml.YAMLError as error:
        mark = getattr(error, 'problem_mark', None)
        where = f'{path}:{mark.line + 1}' if mark else str(path)
        reason = getattr(error, 'problem', None) or 'characters that it does not take'
        raise ValueError(f'{where!r} cannot be read as YAML ({reason})') from error
    except (RecursionError, ValueError) as error:
        raise ValueError(f'{str(path)!r} cannot be read as YAML ({error})') from error
    if not isinstance(content, dict):
        raise ValueError(f'{str(path)!r} is no data.yaml: write {_EXAMPLE} and train: images/train')
    if 'kpt_shape' in content:
        raise ValueError(
            f'{str(path)!r} has kpt_shape: its labels are keypoints, and only boxes and polygons '
            f'are learned'
        )
    return content


def _names(path: Path, content: Mapping[str, Any]) -> dict[int, str]:
    given = content.get('names')
    pairs = given if isinstance(given, dict) else dict(enumerate(given or ()))
    if not isinstance(given, list | dict) or not pairs:
        raise ValueError(f'{str(path)!r} has no list of names: write one per class, {_EXAMPLE}')
    names = {}
    for number, name in pairs.items():
        if type(number) is not int and not str(number).isdecimal():
            raise ValueError(
                f'{str(path)!r}: names has {number!r} for a number of a class: write 0: cat'
            )
        if type(name) not in (str, int, float) or not str(name).strip():
            raise ValueError(
                f'{str(path)!r}: class {number} has no text for a name (a {type(name).__name__}): '
                f'put the name in quotes; YAML takes yes, no and on for true and false'
            )
        names[int(number)] = str(name)
    if len(names) < len(pairs):
        raise ValueError(f'{str(path)!r}: names has one number twice, as 0 and "0": correct them')
    number = content.get('nc', len(names))
    if len(names) != number:
        given = number if isinstance(number, int | str) else type(number).__name__
        raise ValueError(f'{str(path)!r}: nc is {given!r}, and names has {len(names)}: correct one')
    return names


def _text(path: Path, key: str, given: Any) -> str:
    if not isinstance(given, str) or not given:
        raise ValueError(f'{str(path)!r}: {key} is a {type(given).__name__}: write a path as text')
    return given.replace('\\', '/')  # Windows


def _places(path: Path, root: Path, split: str, given: Any) -> Iterator[Path]:
    """The folders and lists that `train` or `val` name; all there."""
    for entry in given if isinstance(given, list) and given else [given]:
        text = _text(path, split, entry)
        short = text.removeprefix(_ABOVE)  # Roboflow writes one too many
        tries = [base / each for each in (text, short) for base in (root, path.parent)]
        found = next((each for each in tries if each.exists()), None)
        if found is None:
            raise FileNotFoundError(
                f'{str(path)!r}: {split} is {entry!r}, which is not in {root.absolute()}: correct '
                f'path and {split}, with / between folders'
            )
        yield Path(normpath(found.absolute()))


def _listed(place: Path, root: Path) -> list[Path]:
    """The absolute images of a folder, or of a list with one per line."""
    if place.is_dir():
        return find_images([place])
    if place.suffix.lower() != '.txt':
        raise ValueError(f'{str(place)!r} is no folder of images, and no .txt with one per line')
    texts = [line.replace('\\', '/') for line in text_lines(place)]
    tries = [[place.parent / text, root / text] for text in texts]
    found = [next((each for each in pair if each.is_file()), None) for pair in tries]
    if missing := [text for text, each in zip(texts, found, strict=True) if each is None]:
        raise FileNotFoundError(
            f'{len(missing)} of {counted(len(texts), "image")} of {str(place)!r} are missing, the '
            f'first is {missing[0]!r}: put them there, or remove them from the list'
        )
    if not texts:
        raise ValueError(f'{str(place)!r} lists no images: write one per line')
    if other := [text for text in texts if Path(text).suffix.lower() not in SUFFIXES]:
        raise ValueError(f'{str(place)!r} lists {other[0]!r}, which is no image')
    return [Path(normpath(each.absolute())) for each in found]
