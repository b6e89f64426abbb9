"""Findings in the COCO files of mmdet's datasets: names and labels, objects, what is learned."""

import contextlib
import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from mmengine.config import Config
from mmengine.registry import DATASETS

from vit_backbones.checks.category_names import Category, name_findings, unused_findings
from vit_backbones.checks.coco_survey import Survey, categories_of, surveyed
from vit_backbones.checks.findings import Finding, error, note, warning
from vit_backbones.checks.objects_given import kept_note
from vit_backbones.config.datasets import leaf_datasets, metainfo_of
from vit_backbones.config.explain import describe
from vit_backbones.config.facts import Facts, type_name
from vit_backbones.config.registries import find_registered
from vit_backbones.files import json_of
from vit_backbones.terminal import quiet_log, quiet_prints

T = TypeVar('T')
_LARGEST = 50  # MB of a file that is read only to be checked


def coco_findings(datasets: Sequence[Any], split: str, *, whole: bool = True) -> Iterator[Finding]:
    """Findings in the files of the datasets of a split that have a `coco_survey`.

    Labels of other categories than their classes stop a training; a test may go on. `whole` says
    that the split has no more datasets, which might have the objects that these lack.
    """
    known = [each for each in datasets if getattr(each, 'coco_survey', None) is not None]
    faulty = False
    for each in known:
        names = list(_name_findings(each, split))
        if each.cat2label or not names:
            yield from _problem_findings(each.coco_survey)
        yield from names
        faulty |= bool(names) or has_broken_file(each)
    if split == 'train' and not faulty:
        surveys = [each.coco_survey for each in known]
        listed = chain(*(survey.categories for survey in surveys))
        certain = whole and len(known) == len(datasets)
        learned = {each.name for each in listed if each.objects or not certain}
        for each, survey in zip(known, surveys, strict=True):
            yield from unused_findings(
                f'{split}_dataloader.dataset',
                survey.path,
                survey.categories,
                each.cat2label,
                learned,
            )


def has_broken_file(dataset: Any) -> bool:
    """Whether a problem in the file of a dataset with a `coco_survey` stops a training."""
    survey = getattr(dataset, 'coco_survey', None)
    return survey is not None and any(each.stops for each in survey.problems)


def _name_findings(dataset: Any, split: str) -> Iterator[Finding]:
    survey = dataset.coco_survey
    if survey.classes:
        yield from name_findings(
            f'{split}_dataloader.dataset',
            survey.path,
            survey.categories,
            dataset.cat2label,
            survey.classes,
            stops=split != 'test' or not dataset.cat2label,
        )


def predicted_label_findings(config: Config) -> Iterator[Finding]:
    """Whether the labels that a model predicts are those of its classes, as far as files show it.

    Only COCO files to test or validate on that are there and small are read.
    """
    facts, read = Facts.of(config, ('test', 'val')), set()
    for _, wanted, path in _coco_files(facts, 'test', 'val'):
        if path not in read and _size(path) <= _LARGEST:
            read.add(path)
            with contextlib.suppress(Exception):  # a prediction needs no data
                yield from _name_findings(build_surveyed(config, wanted), 'test')


def kept_findings(dataset: Any, split: str) -> Iterator[Finding]:
    """How many images and objects each dataset in wrappers trains on, by its `coco_survey`.

    Nothing for one with a filter of its own.
    """
    for leaf in leaf_datasets(dataset) if split == 'train' else ():
        survey = getattr(leaf, 'coco_survey', None)
        kept = survey and survey.kept
        if kept and kept.images == len(leaf):
            yield kept_note(split, *kept, survey.objects)


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

    with quiet_log(), quiet_prints():
        # Imports the library whose reading is watched
        find_registered(wanted.get('type'), config.get('default_scope'))
        return built(config, build)


def _problem_findings(survey: Survey) -> Iterator[Finding]:
    for each in survey.problems:
        yield (error if each.stops else warning)(f'{survey.path}: {each.text}')


def _failure_findings(surveys: Sequence[Survey]) -> Iterator[Finding]:
    """Errors in the file of the last of some datasets, which could not be built."""
    for survey in surveys[-1:]:
        path, categories, classes = survey.path, survey.categories, survey.classes
        names = _in_file_order('dataset', path, categories, classes, stops=True)
        yield from (e for e in chain(names, _problem_findings(survey)) if e.level == 'error')


def _in_file_order(
    place: str, path: str, categories: Sequence[Category], classes: Sequence[str], *, stops: bool
) -> Iterator[Finding]:
    """Findings in names where mmdet numbers the categories of the classes in their order."""
    named = (each.id for each in categories if each.name in classes)
    labels = {each: label for label, each in enumerate(named)}
    yield from name_findings(place, path, categories, labels, classes, stops=stops)


def evaluator_findings(facts: Facts, split: str) -> Iterator[Finding]:
    """Whether a `CocoMetric` measures each label with the category of its class's name.

    Only where its file is not that of the dataset, which has findings of its own.
    """
    datasets = [each for _, each in facts.datasets[split]]
    read = {os.path.realpath(_path(each)) for each in datasets}
    classes = [metainfo_of(each, facts.scope).get('classes') or () for each in datasets]
    for each in facts.evaluators[split]:
        path, is_coco = str(each.get('ann_file')), type_name(each).endswith('CocoMetric')
        if not classes or not is_coco or os.path.realpath(path) in read or _size(path) > _LARGEST:
            continue
        categories = categories_of(json_of(Path(path).read_bytes(), path))
        if each.get('sort_categories'):
            categories.sort(key=lambda category: category.id)
        stops = split != 'test'
        yield from _in_file_order(f'{split}_evaluator', path, categories, classes[0], stops=stops)


def file_findings(facts: Facts, split: str) -> Iterator[Finding]:
    """Findings in the COCO files of a config, without an image; large files are left out."""
    datasets = []
    for place, wanted, path in _coco_files(facts, split):
        if _size(path) > _LARGEST:
            yield note(f'{path} has {_size(path):.0f} MB and was not read: data=True reads it')
            continue
        try:
            datasets.append(build_surveyed(facts.config, wanted))
        except Exception as raised:  # each class has its own
            yield error(f'{place}: {describe(raised)}')
    whole = len(datasets) == len(facts.datasets[split])
    yield from coco_findings(datasets, split, whole=whole)
    yield from chain(*(kept_findings(each, split) for each in datasets))


def _coco_files(facts: Facts, *splits: str) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """(place, dict, path) of each dataset that reads a COCO file, which is there."""
    for place, wanted in chain(*(facts.datasets[split] for split in splits)):
        kinds = find_registered(wanted.get('type'), facts.scope)
        if any(hasattr(each, 'COCOAPI') for each in kinds) and os.path.isfile(_path(wanted)):
            yield place, wanted, _path(wanted)


def _path(dataset: Mapping[str, Any]) -> str:
    return os.path.join(dataset.get('data_root') or '', str(dataset.get('ann_file')))


def _size(path: str) -> float:
    """MB of a file, none for one that is not there."""
    return os.path.getsize(path) / 1e6 if os.path.isfile(path) else float('inf')
