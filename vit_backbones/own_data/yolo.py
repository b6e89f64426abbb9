"""Labels of YOLO, boxes and polygons on 0-1, as COCO has them."""

import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from vit_backbones.bits import check_regular
from vit_backbones.errors import counted, some
from vit_backbones.own_data.common import Labels, given_sizes, placed, text_lines
from vit_backbones.own_data.yolo_layout import Layout, layout_of
from vit_backbones.position import Grid

_ROUNDING = 1e-3  # by which a coordinate may leave 0-1
_BOX, _SHORTEST = 4, 6  # values of a box, and of a polygon at least
_FOLDERS = (('images', 'labels'), ('Images', 'Labels'))


def yolo_labels(path: Path, val_path: Path | None) -> dict[str, Labels]:
    """Labels by split, without those of `val` where there are none.

    Args:
        path: A `data.yaml`, or a folder with `images`, `labels` and `classes.txt`.
        val_path: The same to validate on, by its `val` if it has one.
    """
    layout = layout_of(path)
    chosen = {split: (layout, split) for split in layout.images}
    if val_path is not None:
        other = layout_of(val_path)
        chosen['val'] = (other, 'val' if 'val' in other.images else 'train')
    labels = {split: _labels(*pair) for split, pair in chosen.items()}
    both = [set(each.images[name]) for each, name in chosen.values()]
    if len(both) == 2 and (shared := both[0] & both[1]):
        line = f'{path}: {len(shared)} of {len(both[1])} images to validate on are trained on too'
        labels['val'] = labels['val']._replace(warnings=[*labels['val'].warnings, line])
    return labels


def _labels(layout: Layout, split: str) -> Labels:
    images = layout.images[split]
    files = [_label_of(image) for image in images]
    there = [file.is_file() for file in files]
    if not any(there):
        raise FileNotFoundError(
            f'none of the {counted(len(images), "image")} of {str(layout.path)!r} to '
            f'{"train" if split == "train" else "validate"} on has a label file, such as '
            f'{str(files[0])!r}'
        )
    _check_partners(layout, split, set(files))
    content, folder = placed(images, given_sizes(layout.path, images))
    content['categories'] = [dict(id=i, name=name) for i, name in sorted(layout.names.items())]
    content['annotations'] = list(
        chain.from_iterable(
            _objects(file, entry, layout)
            for file, entry, exists in zip(files, content['images'], there, strict=True)
            if exists
        )
    )
    warnings = list(layout.warnings) if split == 'train' else []
    if bare := [image.name for image, exists in zip(images, there, strict=True) if not exists]:
        warnings.append(
            f'{layout.path}: {len(bare)} of {counted(len(images), "image")} of {split} have no '
            f'label file ({some(bare)}): they count as images without objects'
        )
    return Labels(layout.path, lambda: content, lambda _: folder, 'YOLO', warnings)


def _label_of(image: Path) -> Path:
    """The file of an image's labels: in `labels` where the image is in `images`, else beside it."""
    tries = [image]
    for folder, other in _FOLDERS:
        if folder in image.parts[:-1]:
            place = len(image.parts) - 2 - image.parts[-2::-1].index(folder)
            tries.insert(-1, Path(*image.parts[:place], other, *image.parts[place + 1 :]))
    ends = [each.with_suffix(suffix) for suffix in ('.txt', '.TXT') for each in tries]
    return next((each for each in ends if each.is_file()), ends[0])


def _check_partners(layout: Layout, split: str, files: set[Path]) -> None:
    """Refuse files of labels in folders of them whose image is missing."""
    for images in (layout.folders or {}).get(split, ()):
        labels = _label_of(images / 'classes.jpg').parent
        if labels in (images, *images.parents):
            continue
        found = {p for p in labels.rglob('*') if p.suffix.lower() == '.txt'}
        if single := sorted(found - files - {labels / 'classes.txt'}):
            names = [str(each.relative_to(labels)) for each in single]
            raise FileNotFoundError(
                f'{counted(len(single), "label file")} of {str(labels)!r} without an image of that '
                f'name in {str(images)!r} ({some(names)}): add images, or remove these'
            )


def _objects(file: Path, image: dict[str, Any], layout: Layout) -> Iterator[dict[str, Any]]:
    """The objects of a file, with it and the line for an id."""
    check_regular(file)
    base = layout.path if layout.path.is_dir() else layout.path.parent
    shown = os.path.relpath(file, base)
    for number, line in enumerate(text_lines(file, blank=True), 1):
        if values := _values(line, f'{file}:{number}', layout):
            label, *points = values
            yield dict(
                id=f'{shown}:{number}',
                image_id=image['id'],
                category_id=int(label),
                iscrowd=0,
                **_shape(points, (image['height'], image['width'])),
            )


def _values(line: str, where: str, layout: Layout) -> list[float]:
    """The class and the coordinates in a line; `where` is its file and number."""
    words = line.split()
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise ValueError(
            f'{where}: {line[:40]!r} are no numbers with spaces between: write class x y width '
            f'height, or the class and the points of a polygon'
        ) from None
    number = len(values) - 1
    if values and number != _BOX and (number < _SHORTEST or number % 2):
        raise ValueError(
            f'{where}: {counted(len(values), "value")}; a box has 5 (class x y width height), a '
            f'polygon its class and x y of three or more points'
        )
    if values and values[0] not in layout.names:
        numbers = sorted(layout.names)
        raise ValueError(
            f'{where}: class {words[0]} is none of the {counted(len(numbers), "name")} of '
            f'{str(layout.path)!r}, {numbers[0]} to {numbers[-1]}: add a name, or correct it'
        )
    for value in values[1:]:
        if not -_ROUNDING <= value <= 1 + _ROUNDING:
            raise ValueError(
                f'{where}: {value:g} is outside 0-1: divide x by the width of the image in pixels, '
                f'y by its height'
            )
    return values


def _shape(points: Sequence[float], size: Grid) -> dict[str, Any]:
    """Box, area and maybe polygon in pixels."""
    height, width = size
    if len(points) == _BOX:
        w, h = points[2] * width, points[3] * height
        x, y = points[0] * width - w / 2, points[1] * height - h / 2
        return dict(bbox=[x, y, w, h], area=w * h)
    xs = [x * width for x in points[::2]]
    ys = [y * height for y in points[1::2]]
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    turns = zip(xs, ys, [*xs[1:], xs[0]], [*ys[1:], ys[0]], strict=True)
    area = abs(sum(x1 * y2 - x2 * y1 for x1, y1, x2, y2 in turns)) / 2
    outline = list(chain.from_iterable(zip(xs, ys, strict=True)))
    return dict(bbox=box, area=area, segmentation=[outline])
