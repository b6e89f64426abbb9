"""The COCO files that mmdet's datasets read: what is wrong in them, and how much is learned."""

import copy
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from mmengine.config import Config
from mmengine.registry import DATASETS

from vit_backbones.checks.category_names import Category, name_findings, unused_findings
from vit_backbones.checks.findings import Finding, error, note, warning
from vit_backbones.checks.objects_given import kept_note
from vit_backbones.config.datasets import leaf_datasets
from vit_backbones.config.explain import describe
from vit_backbones.config.facts import Facts, learns_masks, listed
from vit_backbones.config.registries import find_registered
from vit_backbones.hosts.coco_reading import watched_coco
from vit_backbones.objects import Kept, Problem, kept_objects, object_problems
from vit_backbones.terminal import quiet_prints

T = TypeVar('T')
_LARGEST = 50  # MB of a file that is read only to be checked


class Survey(NamedTuple):
    """What is kept of a COCO file; its dataset has it as `coco_survey`."""

    path: str
    classes: Sequence[str]  # of the dataset
    categories: list[Category]
    objects: int
    problems: list[Problem]
    kept: Kept | None  # `None` for other annotations than objects, or where a problem stops


def surveyed(config: Config) -> AbstractContextManager[list[Survey]]:
    """Give a `coco_survey` to each dataset that reads a COCO file meanwhile."""
    metrics = [listed(e.get('metric')) for s in ('val', 'test') for e in _evaluators(config, s)]
    masks = learns_masks(config.get('train_dataloader')) or 'segm' in chain(*metrics)
    return watched_coco(partial(_survey, with_masks=masks))


def _evaluators(config: Config, split: str) -> list[Mapping[str, Any]]:
    return Facts.of(config, (split,)).evaluators[split]


def _survey(dataset: Any, content: Mapping[str, Any], *, with_masks: bool) -> Survey:
    annotations = content.get('annotations') or []
    objects = list(chain(*(each.get('segments_info', (each,)) for each in annotations)))
    counts = Counter(each.get('category_id') for each in objects)
    classes = (dataset.metainfo or {}).get('classes') or ()
    problems, kept = [], None
    if annotations and 'segments_info' not in annotations[0]:
        transforms = getattr(dataset.pipeline, 'transforms', ())
        asked = dict(
            classes=classes or None,
            with_masks=with_masks,
            takes_rle=all(getattr(each, 'poly2mask', True) for each in transforms),
        )
        problems = list(object_problems(content, **asked, measured=dataset.test_mode))
        if not any(each.stops for each in problems):
            filters = None if dataset.test_mode else dataset.filter_cfg
            kept = kept_objects(content, **asked, filter_cfg=filters, indices=dataset._indices)
    return Survey(
        path=str(dataset.ann_file),
        classes=classes,
        categories=[
            Category(each['id'], each['name'], counts[each['id']])
            for each in content.get('categories') or []
        ],
        objects=len(objects),
        problems=problems,
        kept=kept,
    )


def coco_findings(dataset: Any, split: str) -> Iterator[Finding]:
    """Findings in the COCO file of a dataset that has a `coco_survey`.

    Labels of other categories than their classes stop a training; a test may go on.
    """
    survey = getattr(dataset, 'coco_survey', None)
    if survey is None:
        return
    yield from _problem_findings(survey)
    names = list(_name_findings(dataset, survey, split))
    yield from names
    if split == 'train':
        if not names:
            place = f'{split}_dataloader.dataset'
            yield from unused_findings(place, survey.path, survey.categories, dataset.cat2label)


def kept_findings(dataset: Any, split: str) -> Iterator[Finding]:
    """How many images and objects a dataset trains on, by its `coco_survey`."""
    survey = getattr(dataset, 'coco_survey', None)
    if split == 'train' and survey is not None and survey.kept is not None:
        yield kept_note(split, *survey.kept, survey.objects)


def _problem_findings(survey: Survey) -> Iterator[Finding]:
    for each in survey.problems:
        yield (error if each.stops else warning)(f'{survey.path}: {each.text}')


def _name_findings(dataset: Any, survey: Survey, split: str) -> Iterator[Finding]:
    if survey.classes:
        yield from name_findings(
            f'{split}_dataloader.dataset',
            survey.path,
            survey.categories,
            dataset.cat2label,
            survey.classes,
            stops=split != 'test',
        )


def built(config: Config, build: Callable[[], T]) -> T:
    """What `build` gives, with a `coco_survey` for each dataset that reads a COCO file meanwhile.

    Where it fails, a `ValueError` names what is wrong in the file, if that is known.
    """
    with surveyed(config) as surveys:
        try:
            return build()
        except Exception as raised:  # each class has its own
            for each in _failure_findings(surveys):
                raise ValueError(each.text) from raised
            raise


def build_surveyed(config: Config, wanted: Mapping[str, Any]) -> Any:
    """The dataset of a part of a config, wholly read; as `built`."""

    def build() -> Any:
        dataset = DATASETS.build(copy.deepcopy(wanted))
        for leaf in leaf_datasets(dataset):  # possibly with lazy_init
            getattr(leaf, 'full_init', bool)()
        return dataset

    with quiet_prints():
        return built(config, build)


def _failure_findings(surveys: Sequence[Survey]) -> Iterator[Finding]:
    """Errors in the file of the last of some datasets, which could not be built."""
    for survey in surveys[-1:]:
        named = [each for each in survey.categories if each.name in survey.classes]
        labels = {each.id: label for label, each in enumerate(named)}
        found = name_findings(
            'dataset', survey.path, survey.categories, labels, survey.classes, stops=True
        )
        yield from (
            each for each in chain(_problem_findings(survey), found) if each.level == 'error'
        )


def file_findings(facts: Facts, split: str) -> Iterator[Finding]:
    """Findings in the COCO files of a config, without an image; those of 50 MB are left out."""
    for place, wanted in facts.datasets[split]:
        kinds = find_registered(str(wanted.get('type')), facts.scope)
        path = os.path.join(wanted.get('data_root') or '', str(wanted.get('ann_file')))
        if not any(hasattr(each, 'COCOAPI') for each in kinds) or not os.path.isfile(path):
            continue
        size = os.path.getsize(path) / 1e6
        if size > _LARGEST:
            yield note(f'{path} was not read, since it has {size:.0f} MB: data=True reads it')
            continue
        try:
            dataset = build_surveyed(facts.config, wanted)
        except Exception as raised:  # each class has its own
            yield error(f'{place}: {describe(raised)}')
            continue
        yield from coco_findings(dataset, split)
        yield from kept_findings(dataset, split)
