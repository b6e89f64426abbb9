"""A drawn image with labels in place of the files that a dataset and its metrics read."""

import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vit_backbones.config.datasets import metainfo_of
from vit_backbones.config.facts import type_name
from vit_backbones.config.registries import find_registered

_FAMILIES = ('CocoPanopticDataset', 'CocoDataset', 'BaseSegDataset')  # the first that is a base
_OTHERS = ('LVISV05Dataset', 'LVISV1Dataset')  # other files
_CHANNELS = (1, 3, 4)  # that an image file holds


class NotDrawnError(ValueError):
    """There is no drawing for a dataset; the text names the reason."""


def draw_for(
    dataset: dict[str, Any],
    scope: str | None,
    folder: Path,
    *,
    size: tuple[int, int],
    channels: int,
) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
    """Write an image of `size` (H, W) and its labels, as a dataset of a config reads them.

    Gives the dataset's dict with these files, and those of each metric, by its name and keys.

    Raises:
        NotDrawnError: For datasets other than those of mmdet's COCO family, and mmseg's with an
            image and a label map each.
    """
    if channels not in _CHANNELS:
        raise NotDrawnError(f'images of {channels} channels are not drawn')
    kind = next(iter(find_registered(dataset.get('type'), scope)), None)
    bases = [each.__name__ for each in getattr(kind, '__mro__', ())]
    family = next((name for name in _FAMILIES if name in bases), None)
    if family is None or any(name in bases for name in _OTHERS):
        raise NotDrawnError(f'the files of {type_name(dataset)} are not drawn')
    drawn = {key: value for key, value in dataset.items() if key not in ('indices', 'backend_args')}
    metainfo = metainfo_of(dataset, scope)
    classes = metainfo.get('classes')
    if not classes:
        raise NotDrawnError(f'{type_name(dataset)} has no classes')
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, channels), dtype=np.uint8)
    mask = np.zeros(size, np.uint8)
    mask[size[0] // 4 : size[0] * 3 // 4, size[1] // 4 : size[1] * 3 // 4] = 1
    if family == 'BaseSegDataset':
        return _segments(drawn, kind, folder, image, mask * (len(classes) > 1)), {}
    things = metainfo.get('thing_classes', classes if family == 'CocoDataset' else ())
    if not things:
        raise NotDrawnError(f'{type_name(dataset)} has no thing_classes')
    return _objects(drawn, folder, image, mask, classes, things, panoptic='Pan' in family)


def _segments(
    dataset: dict[str, Any],
    kind: Callable[..., Any],
    folder: Path,
    image: np.ndarray,
    labels: np.ndarray,
) -> dict[str, Any]:
    defaults = inspect.signature(kind).parameters
    for name, content in (('img_suffix', image), ('seg_map_suffix', labels)):
        inherited = {'img_suffix': '.jpg', 'seg_map_suffix': '.png'}[name]
        default = defaults[name].default if name in defaults else inherited
        _write(folder / name / f'drawn{dataset.get(name, default)}', content)
    given = {'data_root': str(folder)}
    given['data_prefix'] = dict(img_path='img_suffix', seg_map_path='seg_map_suffix')
    if dataset.get('ann_file'):
        (folder / 'names.txt').write_text('drawn\n')
        given['ann_file'] = 'names.txt'
    return dataset | given


def _objects(
    dataset: dict[str, Any],
    folder: Path,
    image: np.ndarray,
    mask: np.ndarray,
    classes: Sequence[str],
    things: Sequence[str],
    *,
    panoptic: bool,
) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
    height, width = mask.shape
    box = [width // 4, height // 4, width * 3 // 4 - width // 4, height * 3 // 4 - height // 4]
    x, y, w, h = box
    outline = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    known = dict(id=1, category_id=1, bbox=box, area=w * h, iscrowd=0)
    objects = [known | dict(image_id=1, segmentation=outline)]
    images = [dict(id=1, file_name='drawn.png', height=height, width=width)]
    kinds = [
        dict(id=i, name=name, isthing=int(name in things)) for i, name in enumerate(classes, 1)
    ]
    _write(folder / 'images/drawn.png', image)
    content = dict(images=images, categories=kinds)
    whole = folder / 'objects.json'
    thing_kinds = [each for each in kinds if each['isthing']]
    whole.write_text(json.dumps(content | dict(annotations=objects, categories=thing_kinds)))
    prefix = dict(img='images/')
    if panoptic:
        prefix['seg'] = 'panoptic/'
        _write(folder / 'panoptic/drawn.png', np.dstack([mask * 0, mask * 0, mask]))  # BGR of ids
        entry = dict(image_id=1, file_name='drawn.png', segments_info=[known])
        whole = folder / 'panoptic.json'
        whole.write_text(json.dumps(content | dict(annotations=[entry])))
    changed = dict(data_root=str(folder), ann_file=whole.name, data_prefix=prefix)
    return dataset | changed, dict(
        CocoMetric=dict(ann_file=str(folder / 'objects.json')),
        CocoPanopticMetric=dict(
            ann_file=str(folder / 'panoptic.json'), seg_prefix=str(folder / 'panoptic')
        ),
    )


def _write(path: Path, content: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        written = cv2.imwrite(str(path), content)
    except cv2.error:
        written = False
    if not written:
        raise NotDrawnError(f'files named {path.suffix} are not drawn')
