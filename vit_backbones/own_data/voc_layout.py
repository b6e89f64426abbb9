"""Folders of Pascal VOC: the XML of each split, and their images."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from vit_backbones.errors import counted, some
from vit_backbones.images import SUFFIXES
from vit_backbones.own_data.common import SPLITS, text_lines
from vit_backbones.own_data.xml_reading import xml_of

_LABELS = ('annotations', 'labels', 'xml', 'xmls')  # folders of XML, in small letters
_IMAGES = ('JPEGImages', 'images', 'Images')
_UNREAD = ('test', 'testing')
_LISTS = 'ImageSets/Main'


class Photo(NamedTuple):
    """An XML and its absolute image."""

    xml: Path
    image: Path


def xml_files(data: Path) -> list[Path]:
    """The XML below a folder, without hidden ones and those that GDAL writes."""
    tops = list(data.iterdir())  # of which some may be links, which rglob does not follow
    every = [*tops, *(path for top in tops if top.is_dir() for path in top.rglob('*'))]
    found = sorted(path for path in every if path.suffix.lower() == '.xml')
    return [
        path
        for path in found
        if not any(part[0] == '.' for part in path.relative_to(data).parts)
        and not path.name.lower().endswith('.aux.xml')
    ]


def photos_of(data: Path) -> tuple[dict[str, list[Photo]], list[str]]:
    """XML and images by split, without `val` where there are none, and lines on what is odd."""
    files = xml_files(data)
    lists = {split: data / _LISTS / f'{split}.txt' for split in ('train', 'trainval', 'val')}
    if not lists['train'].is_file():
        lists = {'train': lists['trainval']}
    lists.pop('trainval', None)
    if lists['train'].is_file():
        splits = {s: list(_chosen(files, path)) for s, path in lists.items() if path.is_file()}
        listed = True
    else:
        splits, listed = _by_folder(data, files), False
    found = _paired(data, splits)
    return found, [] if listed else list(_unlabelled(data, found))


def _chosen(files: Sequence[Path], listed: Path) -> Iterator[Path]:
    """The XML of the names in a list."""
    known = {path.stem: path for path in files}
    names = [line.split()[0] for line in text_lines(listed)]
    if not names:
        raise ValueError(f'{str(listed)!r} lists no images: write a name per line')
    missing = [name for name in names if name not in known]
    if missing:
        raise FileNotFoundError(
            f'{len(missing)} of {counted(len(names), "name")} in {str(listed)!r} have no XML '
            f'({some(missing)}): add them, or remove the names'
        )
    yield from (known[name] for name in dict.fromkeys(names))


def _by_folder(data: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """XML by the folders `train` and `val` above them; those of `test` are left out."""
    splits = defaultdict(list)
    for path in files:
        parts = {part.lower() for part in path.relative_to(data).parts[:-1]}
        if not parts.intersection(_UNREAD):
            splits['val' if parts.intersection(SPLITS['val']) else 'train'].append(path)
    if 'train' not in splits:
        raise FileNotFoundError(f'{str(data)!r} has XML of val or test, and none to train on')
    return splits


def _paired(data: Path, splits: dict[str, list[Path]]) -> dict[str, list[Photo]]:
    inside = cache(_images_in)
    found = {split: [(xml, _image(xml, inside)) for xml in each] for split, each in splits.items()}
    every = [pair for pairs in found.values() for pair in pairs]
    missing = [xml for xml, image in every if image is None]
    if missing:
        names = some(xml.relative_to(data) for xml in missing)
        raise FileNotFoundError(
            f'{len(missing)} of {len(every)} XML of {str(data)!r} have no image of their name, nor '
            f'of their filename, in {" or ".join(map(str, _places(missing[0])))} ({names}): add '
            f'images, or remove these'
        )
    return {split: [Photo(*pair) for pair in pairs] for split, pairs in found.items()}


def _places(xml: Path) -> list[Path]:
    """Folders in which the image of an XML may lie."""
    parts = xml.absolute().parts[:-1]
    places = []
    for at in reversed(range(len(parts))):
        if parts[at].lower() in _LABELS:
            swapped = [Path(*parts[:at], name) for name in _IMAGES]
            places += [each.joinpath(*parts[at + 1 :]) for each in swapped]
            places += [*swapped, Path(*parts[:at])]
    return [each for each in dict.fromkeys(places) if each.is_dir()] + [Path(*parts)]


def _images_in(folder: Path) -> dict[str, list[Path]]:
    """The images in a folder by their names, with and without suffix."""
    found = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and path.name[0] != '.':
            found[path.stem].append(path)
            found[path.name].append(path)
    return found


def _image(xml: Path, inside: Callable[[Path], dict[str, list[Path]]]) -> Path | None:
    """The image of an XML's name, else that of its `filename`."""
    places = _places(xml)
    found = next((got for place in places if (got := inside(place).get(xml.stem))), [])
    if len(found) == 1:
        return found[0]
    named = PureWindowsPath(xml_of(xml).findtext('filename') or '').name.strip()
    given = next((got for place in places if (got := inside(place).get(named))), [])
    chosen = [each for each in found or given if each in given]
    if found and not chosen:
        raise ValueError(
            f'{str(xml)!r} has several images ({some(path.name for path in found)}), and its '
            f'filename is none of them: keep one'
        )
    return chosen[0] if chosen else None


def _unlabelled(data: Path, found: dict[str, list[Photo]]) -> Iterator[str]:
    """A line on images beside labelled ones that have no XML."""
    used = {photo.image for photos in found.values() for photo in photos}
    folders = {path.parent for path in used}
    every = {path for folder in folders for each in _images_in(folder).values() for path in each}
    if bare := sorted(every - used):
        yield (
            f'{data}: {counted(len(bare), "image")} without an XML ({some(p.name for p in bare)}) '
            f'left out: an image without objects needs an XML without any'
        )
