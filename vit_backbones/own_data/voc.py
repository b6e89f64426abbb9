"""Boxes of Pascal VOC, an XML per image, as COCO has them.

The XML are those of the devkit (http://host.robots.ox.ac.uk/pascal/VOC/): the pixels of a box are
numbered from 1, and it holds those of its two corners.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

from vit_backbones.errors import counted
from vit_backbones.own_data.class_names import CLASSES, class_names
from vit_backbones.own_data.coco import check_sizes
from vit_backbones.own_data.common import Labels, given_sizes, placed
from vit_backbones.own_data.voc_layout import Photo, photos_of
from vit_backbones.own_data.xml_reading import xml_of

_CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')
Box = tuple[float, float, float, float]


class Thing(NamedTuple):
    """An object: its name, corners as they are written, and whether it is `difficult`."""

    name: str
    box: Box
    difficult: bool


class Annotated(NamedTuple):
    """The (width, height) that an XML gives its image, `None` without one, and the objects."""

    size: tuple[int, int] | None
    things: list[Thing]


def voc_labels(data: Path, val_data: Path | None) -> dict[str, Labels]:
    """Labels by split, without those of `val` where there are none.

    Args:
        data: A folder of XML and images.
        val_data: The same to validate on, by its own split for that if it has one.
    """
    found, warnings = photos_of(data)
    sources = dict.fromkeys(found, data)
    if val_data is not None:
        other, more = photos_of(val_data)
        found['val'], sources['val'] = other.get('val', other['train']), val_data
        warnings += more
    read = {split: [_annotated(each.xml) for each in photos] for split, photos in found.items()}
    every = list(chain.from_iterable(each.things for each in chain.from_iterable(read.values())))
    names = _names(data, found, read)
    start = 1
    if any(min(thing.box[:2]) < 1 for thing in every):
        start = 0
        warnings.append(
            f'{data}: boxes begin at 0, so xmin, ymin, xmax and ymax count as edges in pixels; '
            f"Pascal VOC's own begin at pixel 1"
        )
    if hard := sum(thing.difficult for thing in every):
        warnings.append(
            f'{data}: {hard} of {counted(len(every), "object")} are difficult: neither training '
            f'nor tests count them'
        )
    return {
        split: _labels(sources[split], photos, read[split], names, start)._replace(
            warnings=warnings if split == 'train' else ()
        )
        for split, photos in found.items()
    }


def _names(
    data: Path, found: Mapping[str, Sequence[Photo]], read: Mapping[str, Sequence[Annotated]]
) -> dict[str, int]:
    """Numbers of classes from 1: in the order of `classes.txt`, else of the alphabet."""
    path = next((path for name in CLASSES if (path := data / name).is_file()), None)
    names = None if path is None else class_names(path)
    for split, photos in found.items():
        for photo, each in zip(photos, read[split], strict=True):
            unknown = [thing.name for thing in each.things if thing.name not in (names or ())]
            if names is not None and unknown:
                raise ValueError(
                    f'{str(photo.xml)!r} has an object {unknown[0]!r}, which is none of the '
                    f'{counted(len(names), "class")} of {str(path)!r}: add it, or correct it'
                )
    things = chain.from_iterable(each.things for each in chain.from_iterable(read.values()))
    names = sorted({thing.name for thing in things}) if names is None else names
    return {name: number for number, name in enumerate(dict.fromkeys(names), 1)}


def _labels(
    data: Path,
    photos: Sequence[Photo],
    read: Sequence[Annotated],
    names: Mapping[str, int],
    start: int,
) -> Labels:
    images = [photo.image for photo in photos]
    sizes = [each.size and each.size[::-1] for each in read]
    unsaid = [image for image, size in zip(images, sizes, strict=True) if size is None]
    known = dict(zip(unsaid, given_sizes(data, unsaid), strict=True))
    whole = [size or known[image] for image, size in zip(images, sizes, strict=True)]
    content, folder = placed(images, whole)
    check_sizes(data, content['images'], folder)
    content['categories'] = [dict(id=number, name=name) for name, number in names.items()]
    content['annotations'] = [
        dict(
            id=f'{os.path.relpath(photo.xml, data)}:{i}',
            image_id=entry['id'],
            category_id=names[thing.name],
            iscrowd=int(thing.difficult),
            **_shape(thing.box, start),
        )
        for photo, entry, each in zip(photos, content['images'], read, strict=True)
        for i, thing in enumerate(each.things, 1)
    ]
    return Labels(data, lambda: content, lambda _: folder, 'Pascal VOC')


def _shape(box: Box, start: int) -> dict[str, Any]:
    """Box and area in pixels; the last pixels are in the box where they are numbered from 1."""
    x, y = box[0] - start, box[1] - start
    width, height = box[2] - x, box[3] - y
    return dict(bbox=[x, y, width, height], area=width * height)


def _annotated(path: Path) -> Annotated:
    root = xml_of(path)
    if root.tag != 'annotation':
        raise ValueError(
            f'{str(path)!r} is no Pascal VOC: it begins with <{root.tag}>, not <annotation>'
        )
    size = None
    if (given := root.find('size')) is not None:
        sides = [_number(path, given, name, 'size') for name in ('width', 'height')]
        size = (int(sides[0]), int(sides[1])) if all(sides) else None  # some tools write 0
    return Annotated(size, list(_things(path, root)))


def _things(path: Path, root: Element) -> Iterator[Thing]:
    for number, each in enumerate(root.findall('object'), 1):
        what = f'object {number}'
        name = (each.findtext('name') or '').strip()
        if not name:
            raise ValueError(f'{str(path)!r}: {what} has no name: write its class')
        box = each.find('bndbox')
        if box is None:
            raise ValueError(f'{str(path)!r}: {what}, {name!r}, has no bndbox: write its corners')
        x1, y1, x2, y2 = (_number(path, box, corner, what) for corner in _CORNERS)
        if x2 < x1 or y2 < y1:
            raise ValueError(
                f'{str(path)!r}: {what} has a bndbox from ({x1:g}, {y1:g}) to ({x2:g}, {y2:g}): '
                f'xmin and ymin are the smaller ones'
            )
        difficult = (each.findtext('difficult') or '').strip() not in ('', '0')
        yield Thing(name, (x1, y1, x2, y2), difficult)


def _number(path: Path, node: Element, name: str, what: str) -> float:
    text = node.findtext(name)
    try:
        number = float(text or '')
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        got = 'no' if text is None else f'{text.strip()[:40]!r} for'
        raise ValueError(f'{str(path)!r}: {what} has {got} {name}: write a number of pixels')
    return number
