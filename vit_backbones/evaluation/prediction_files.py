"""Predictions as files: index masks, COCO's JSON for objects, COCO's panoptic format, pictures."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from vit_backbones.cutouts import Cutout
from vit_backbones.errors import counted
from vit_backbones.evaluation.predicting import Prediction
from vit_backbones.files import write_whole
from vit_backbones.hosts.panoptic_api import id2rgb
from vit_backbones.images import as_picture
from vit_backbones.models.trained import Trained
from vit_backbones.pictures.canvas import png
from vit_backbones.pictures.overlay import draw_overlay, shown_labels, with_legend
from vit_backbones.samples import PANOPTIC_OFFSET, as_array, marks_of

FOLDERS = ('masks', 'panoptic', 'pictures')


def without_results(paths: Sequence[Path], out: Path) -> list[Path]:
    """The images that are no results of an earlier run into the folder `out`.

    Raises:
        ValueError: If all of them are.
    """
    folders = [Path(os.path.abspath(out / name)) for name in FOLDERS]
    places = [Path(os.path.abspath(path)) for path in paths]
    pairs = zip(paths, places, strict=True)
    kept = [path for path, place in pairs if not any(map(place.is_relative_to, folders))]
    if not kept:
        raise ValueError(
            f'all images lie in {", ".join(str(out / name) for name in FOLDERS)}, where results '
            f'go: take another out=DIR'
        )
    return kept


class ResultWriter:
    """Writes predictions into a folder, each file whole or not at all.

    `NAME.png` in `FOLDERS` is written at once, `predictions.json` and `panoptic.json` by `close`;
    old files are replaced. Instances with a score below `score_thr` are left out.

    Attributes:
        written: Names of the files and folders that have been written, or will be by `close`.
    """

    def __init__(
        self, out: Path, trained: Trained, *, score_thr: float = 0.3, pictures: bool = True
    ) -> None:
        self.out, self.trained = out, trained
        self.score_thr, self.pictures = score_thr, pictures
        self.written: set[str] = set()
        self._images: list[dict[str, Any]] = []
        self._objects: list[dict[str, Any]] = []
        self._segments: list[dict[str, Any]] = []

    def add(self, prediction: Prediction) -> None:
        """Write the prediction of an image, and keep what `close` writes."""
        item, sample = prediction
        height, width = item.pixels.shape[:2]
        number, objects, segments = len(self._images) + 1, [], []
        if 'pred_sem_seg' in sample:
            labels = as_array(sample.pred_sem_seg.data).squeeze(0)
            self._write('masks', f'{item.name}.png', index_png(labels, self.trained.palette))
        if 'pred_panoptic_seg' in sample:
            ids = as_array(sample.pred_panoptic_seg.sem_seg).squeeze(0)
            segments = [self._write_panoptic(number, f'{item.name}.png', ids)]
        if 'pred_instances' in sample:
            found = coco_annotations(sample.pred_instances, number, self.score_thr)
            start = len(self._objects) + 1
            objects = [dict(id=i) | each for i, each in enumerate(found, start)]
            self.written.add('predictions.json')
        if self.pictures:
            self._draw(prediction)
        image = dict(id=number, file_name=item.file_name, height=height, width=width)
        self._images.append(image)
        self._objects += objects
        self._segments += segments

    @property
    def count(self) -> str:
        """How many images there are, and how many objects in them, in words."""
        images = counted(len(self._images), 'image')
        if 'predictions.json' not in self.written:
            return images
        objects = counted(len(self._objects), 'object')
        lower = '' if self._objects else ' (a lower threshold shows weaker ones)'
        return f'{images}, {objects} of score {self.score_thr:g} or more{lower}'

    def close(self) -> list[str]:
        """Write the JSON files; gives the names of all files and folders written."""
        if 'predictions.json' in self.written:
            self._write_json('predictions.json', self._objects)
        if 'panoptic' in self.written:
            self._write_json('panoptic.json', self._segments)
        return sorted(self.written)

    def _write_panoptic(self, number: int, name: str, ids: np.ndarray) -> dict[str, Any]:
        void = self.trained.model.panoptic_fusion_head.num_classes
        coloured, segments = panoptic_segments(ids, void)
        self._write('panoptic', name, png(Image.fromarray(id2rgb(coloured))))
        return dict(image_id=number, file_name=name, segments_info=segments)

    def _draw(self, prediction: Prediction) -> None:
        item, sample = prediction
        looks = self.trained.classes, self.trained.palette
        marks = marks_of(sample, self.score_thr)
        picture = draw_overlay(as_picture(item.pixels), marks[1], *looks)
        picture = with_legend(picture, shown_labels(marks), *looks)
        self._write('pictures', f'{item.name}.png', png(picture))

    def _write(self, folder: str, name: str, content: bytes) -> None:
        write_whole(self.out / folder / name, content)
        self.written.add(folder)

    def _write_json(self, name: str, annotations: list[dict[str, Any]]) -> None:
        num_things = number_of_things(self.trained)
        categories = [
            dict(id=i + 1, name=each) | (dict(isthing=int(i < num_things)) if 'pan' in name else {})
            for i, each in enumerate(self.trained.classes)
        ]
        content = dict(images=self._images, annotations=annotations, categories=categories)
        write_whole(self.out / name, json.dumps(content).encode())
        self.written.add(name)


def index_png(labels: np.ndarray, palette: np.ndarray) -> bytes:
    """Encode (H, W) labels from 0 to 65535 as a PNG in which each pixel is the number of its class.

    Viewers show the colours of `palette`; a PNG with labels above 255 has 16 bits and no palette.
    """
    if labels.max(initial=0) > 255:
        picture = Image.fromarray(labels.astype(np.uint16))
    else:
        picture = Image.fromarray(labels.astype(np.uint8)).convert('P')
        picture.putpalette(palette[:256].tobytes())
    return png(picture)


def coco_annotations(instances: Any, image_id: int, score_thr: float) -> list[dict[str, Any]]:
    """COCO's annotations of mmdet's instances, without `id`, the highest score first.

    `category_id` is the label + 1, `bbox` is (x, y, width, height). Lower scores are left out.
    """
    labels, scores = as_array(instances.labels), as_array(instances.scores)
    boxes, masks = as_array(instances.bboxes), instances.get('masks')
    annotations = []
    for i in best_first(scores, score_thr):
        left, top, right, bottom = boxes[i].tolist()
        box = [left, top, right - left, bottom - top]
        shape = dict(bbox=box, area=box[2] * box[3])
        if masks is not None:
            encoded = _encoded(masks[i])
            shape['area'] = float(rle.area(encoded))
            shape['segmentation'] = encoded | dict(counts=encoded['counts'].decode())
        category = int(labels[i]) + 1
        known = dict(image_id=image_id, category_id=category, score=float(scores[i]), iscrowd=0)
        annotations.append(known | shape)
    return annotations


def _encoded(mask: Any) -> dict[str, Any]:
    """COCO's RLE of a mask; one of a large image is not made whole."""
    if isinstance(mask, Cutout):
        counts = dict(counts=mask.run_lengths(), size=list(mask.size))
        return rle.frPyObjects(counts, *mask.size)
    return rle.encode(np.asfortranarray(as_array(mask), np.uint8))


def number_of_things(trained: Trained) -> int:
    """How many classes are of things: MaskFormer and two-stage models have these first."""
    return getattr(trained.model, 'num_things_classes', len(trained.classes))


def best_first(scores: np.ndarray, score_thr: float) -> np.ndarray:
    """Indices of scores of at least `score_thr`, the highest first."""
    order = np.argsort(-scores, kind='stable')
    return order[scores[order] >= score_thr]


def panoptic_segments(ids: np.ndarray, void: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Convert mmdet's panoptic map (H, W), label + 1000 * instance, to COCO's.

    Gives ids from 1, 0 for the label `void`, and COCO's `segments_info`.
    """
    numbered, segments = np.zeros(ids.shape, np.int64), []
    for each in np.unique(ids):
        label = int(each % PANOPTIC_OFFSET)
        if label == void:
            continue
        where = ids == each
        number = len(segments) + 1
        numbered[where] = number
        encoded = rle.encode(np.asfortranarray(where, np.uint8))
        shape = dict(area=int(where.sum()), bbox=rle.toBbox(encoded).tolist(), iscrowd=0)
        segments.append(dict(id=number, category_id=label + 1) | shape)
    return numbered, segments
