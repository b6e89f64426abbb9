"""What is kept of each COCO file that a dataset of mmdet reads: its categories and its mistakes."""

from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

from mmengine.config import Config

from vit_backbones.checks.category_names import Category
from vit_backbones.config.datasets import classes_of
from vit_backbones.config.facts import Facts, learns_masks, listed
from vit_backbones.errors import one_line
from vit_backbones.hosts.coco_reading import watched_coco
from vit_backbones.objects import Kept, Problem, kept_of, survey_of
from vit_backbones.objects.survey import column_of


class Survey(NamedTuple):
    """What is kept of a COCO file; its dataset has it as `coco_survey`."""

    path: str
    classes: list[str]  # of the dataset
    categories: list[Category]
    objects: int
    problems: list[Problem]
    kept: Kept | None  # `None` where a problem stops, or for other annotations or none to learn


def surveyed(config: Config) -> AbstractContextManager[list[Survey]]:
    """Give a `coco_survey` to each dataset that reads a COCO file meanwhile; yields all of them."""
    evaluators = Facts.of(config, ('val', 'test')).evaluators
    metrics = [listed(each.get('metric')) for each in chain(*evaluators.values())]
    masks = learns_masks(config.get('train_dataloader')) or 'segm' in chain(*metrics)
    return watched_coco(partial(_survey, with_masks=masks))


def categories_of(content: Mapping[str, Any]) -> list[Category]:
    """The categories of a COCO file, in its order."""
    counts = Counter(each for each in column_of(_objects(content), 'category_id') if _is_id(each))
    listed = [each for each in _dicts(content.get('categories')) if _is_id(each.get('id'))]
    return [Category(e['id'], e.get('name'), counts[e['id']]) for e in listed]


def _objects(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The annotations of a COCO file, the segments of a panoptic one."""
    annotations = _dicts(content.get('annotations'))
    if not _is_panoptic(content):
        return annotations
    return list(chain(*(_dicts(each.get('segments_info')) for each in annotations)))


def _dicts(entries: Any) -> list[dict[str, Any]]:
    """The dicts of a list; other entries and other values are mistakes that are reported."""
    return [each for each in entries if isinstance(each, dict)] if isinstance(entries, list) else []


def _is_id(value: Any) -> bool:
    return isinstance(value, int | float | str)


def _is_panoptic(content: Mapping[str, Any]) -> bool:
    return any('segments_info' in each for each in _dicts(content.get('annotations'))[:1])


def _survey(dataset: Any, content: Any, *, with_masks: bool) -> Survey:
    classes = classes_of(dataset)
    classes = [] if isinstance(classes, str) else list(classes)  # a text is an error of its own
    problems, kept = [], None
    if not isinstance(content, dict):
        text = f'a {type(content).__name__}, no dict of images, annotations and categories'
        if isinstance(content, Exception):
            text = f'no JSON that can be read ({one_line(content)})'
        problems = [Problem(True, f'it holds {text}: is it a COCO file?')]
        return Survey(str(dataset.ann_file), [], [], 0, problems, kept)
    transforms = getattr(dataset.pipeline, 'transforms', ())
    if any(type(each).__name__ == 'LoadEmptyAnnotations' for each in transforms):
        return Survey(str(dataset.ann_file), [], [], 0, problems, kept)
    # Lists of images to test on have no annotations
    if not _is_panoptic(content) and ('annotations' in content or not dataset.test_mode):
        problems, survey = survey_of(
            content,
            classes=classes or None,
            with_masks=with_masks,
            measured=dataset.test_mode,
            takes_rle=all(getattr(each, 'poly2mask', True) for each in transforms),
        )
        if not any(each.stops for each in problems):
            filters = None if dataset.test_mode else dataset.filter_cfg
            kept = kept_of(survey, filters, dataset._indices)
    return Survey(
        path=str(dataset.ann_file),
        classes=classes,
        categories=categories_of(content),
        objects=len(_objects(content)),
        problems=problems,
        kept=kept,
    )
