"""Checks of the data: folders and files of a config, images and labels of a built dataset."""

import contextlib
import inspect
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from vit_backbones.checks.coco_files import coco_findings
from vit_backbones.checks.findings import Finding, error
from vit_backbones.checks.listed_sizes import SIZES
from vit_backbones.checks.looks import Look
from vit_backbones.checks.objects_given import OBJECTS, instance_findings
from vit_backbones.config.datasets import leaf_datasets
from vit_backbones.config.facts import Facts
from vit_backbones.errors import one_line
from vit_backbones.terminal import progress

# Each sees every loaded image
LOOKS: tuple[Look, ...] = (
    SIZES,
    OBJECTS,
)
_SAMPLED = 16  # images of which only the size is asked
_LABELLED = 50  # images whose labels are looked at; a wrong numbering shows in the first ones


def drawn_findings(facts: Facts) -> Iterator[Finding]:
    """Whether the built-in data are drawn in the folder that the datasets read."""
    root = facts.builtin_data.get('root', 'data/shapes')
    for split, datasets in facts.datasets.items():
        for place, dataset in datasets:
            read = dataset.get('data_root') or ''
            if os.path.abspath(read) != os.path.abspath(root):
                yield error(
                    f'builtin_data.root is {root!r}, but {place}.data_root is {read!r}: give both, '
                    f'and {split}_evaluator.ann_file where there is one, the same folder'
                )
                return


def dataset_findings(dataset: Any, split: str) -> Iterator[Finding]:
    """Findings in a built dataset, possibly one in wrappers, all of whose images are read."""
    yield from start_findings(dataset, split)
    yield from image_findings(dataset, split)


def start_findings(dataset: Any, split: str) -> Iterator[Finding]:
    """Findings in a built dataset that need no image, or a few: those before each training."""
    place, found = f'{split}_dataloader.dataset', []
    for leaf in leaf_datasets(dataset):
        found += coco_findings(leaf, split)
        found += instance_findings(leaf, place)
        found += label_findings(leaf, place)
    yield from dict.fromkeys(found)  # several datasets may read one file
    if not len(dataset) and not any(each.level == 'error' for each in found):
        yield error(f'{place} holds no image: its ann_file, data_prefix and filter_cfg leave none')


def image_findings(dataset: Any, split: str, looks: Sequence[Look] = LOOKS) -> Iterator[Finding]:
    """Decode each image and annotation once, and run the whole pipeline on the first one.

    Only MMEngine's datasets, possibly in wrappers, are decoded; each of `looks` sees each of their
    images.
    """
    broken: list[str] = []
    found: list[Finding] = []
    for leaf in leaf_datasets(dataset):
        loaders = loaders_of(leaf)
        if loaders and hasattr(leaf, 'get_data_info'):
            walk = list(_walk(leaf, loaders, looks))
            broken += [reason for reason, _ in walk if reason]
            answers = [each for reason, each in walk if each is not None]
            for look, of_all in zip(looks, zip(*answers, strict=True), strict=False):
                found += look.findings(leaf, of_all, f'{split}_dataloader.dataset')
    if broken:
        yield error(
            f'{len(broken)} {split} image{"s" * (len(broken) > 1)} cannot be decoded: '
            f'{", ".join(broken[:5])}{" ..." if len(broken) > 5 else ""}; repair or remove them'
        )
        return
    yield from found
    try:
        dataset[0]
    except Exception as raised:  # each transform has its own exceptions
        yield error(
            f'{split}_dataloader.dataset.pipeline fails on the first image ({one_line(raised)})'
        )


def sample_findings(dataset: Any, split: str) -> Iterator[Finding]:
    """Whether a few images have the sizes that their dataset lists."""
    for leaf in leaf_datasets(dataset):
        loaders = [each for each in loaders_of(leaf) if 'Image' in type(each).__name__]
        answers = []
        for index in range(0, len(leaf), max(1, len(leaf) // _SAMPLED)) if loaders else ():
            with contextlib.suppress(Exception):  # the training skips what cannot be decoded
                info = leaf.get_data_info(index)
                if 'height' not in info:
                    break
                answers.append(SIZES.ask(loaded_by(loaders, info)))
        yield from SIZES.findings(leaf, answers, f'{split}_dataloader.dataset')


def loaders_of(dataset: Any) -> list[Any]:
    """The transforms of a dataset that read files: those named `Load...`."""
    transforms = getattr(getattr(dataset, 'pipeline', None), 'transforms', [])
    inner = [(each, getattr(each, 'transform', None)) for each in transforms]
    bare = [each if inspect.ismethod(within) else within or each for each, within in inner]
    return [each for each in bare if type(each).__name__.startswith('Load')]  # a hook wraps some


def _walk(
    dataset: Any, loaders: Sequence[Any], looks: Sequence[Look]
) -> Iterator[tuple[str | None, list[Any] | None]]:
    """For each image, the reason why it cannot be decoded, and the answers of `looks`."""
    paths = set()

    def decode(index: int) -> tuple[str | None, list[Any] | None]:
        path = f'image {index}'
        try:
            info = dataset.get_data_info(index)
            path = info.get('img_path')
            if path in paths and 'instances' not in info:  # objects may be those of another entry
                return None, None
            paths.add(path)
            loaded = loaded_by(loaders, info)
        except Exception as raised:  # each decoder has its own exceptions
            return f'{path} ({one_line(raised)})', None
        return None, [look.ask(loaded) for look in looks]

    with progress() as bar, ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        walked = pool.map(decode, range(len(dataset)))
        yield from bar.track(walked, len(dataset), description='decoding images')


def loaded_by(loaders: Sequence[Any], info: dict[str, Any]) -> dict[str, Any]:
    """An entry of a dataset after its loading transforms."""
    for loader in loaders:
        info = loader(info)
    return info


def label_findings(dataset: Any, place: str) -> Iterator[Finding]:
    """Whether the label maps of an mmseg dataset hold labels that it has no class for."""
    classes = _classes_of(dataset)
    if not classes or not hasattr(dataset, 'seg_map_suffix'):
        return
    loaders = loaders_of(dataset)
    for index in range(min(len(dataset), _LABELLED)):
        try:
            info = loaded_by(loaders, dataset.get_data_info(index))
        except Exception:  # image_findings reports it
            continue
        ignored = {getattr(dataset, 'ignore_index', 255)}
        highest = max(set(np.unique(info.get('gt_seg_map', ()))) - ignored, default=0)
        if highest >= len(classes):
            yield error(
                f'{place}: {info["seg_map_path"]} holds label {highest:.0f}, but labels of '
                f'{len(classes)} classes run from 0 to {len(classes) - 1}: name all classes, or '
                f'draw the labels anew (reduce_zero_label=True takes 1 off each)'
            )
            return


def _classes_of(dataset: Any) -> Sequence[str]:
    return (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()
