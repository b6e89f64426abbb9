"""The datasets of a config: files that are missing, and building them."""

import copy
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS

from vit_backbones.config.emptied import why_empty
from vit_backbones.config.explain import describe
from vit_backbones.config.facts import Facts, dataset_configs, nodes, type_name
from vit_backbones.config.loading import load_config, use_scope
from vit_backbones.config.registries import find_registered
from vit_backbones.shapes import write_shapes
from vit_backbones.terminal import quiet_log, quiet_prints


def leaf_datasets(dataset: Any) -> Iterator[Any]:
    """Datasets inside wrappers such as `ConcatDataset`, or the dataset itself."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if inner == [None]:
        yield dataset
        return
    for each in inner:
        yield from leaf_datasets(each)


def classes_of(dataset: Any) -> Sequence[str]:
    """Names of a dataset's classes, none where it has none."""
    return (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()


def missing_data(facts: Facts) -> Iterator[str]:
    """A line for each data folder and annotation file of a config that does not exist."""
    for split, found in facts.datasets.items():
        for place, dataset in found:
            yield from _missing_of(place, dataset)
        for each in facts.evaluators[split]:
            yield from _missing(f'{split}_evaluator.ann_file', each.get('ann_file'))


def _missing_of(place: str, dataset: dict) -> Iterator[str]:
    if (dataset.get('backend_args') or {}).get('backend', 'local') != 'local':
        return
    root = dataset.get('data_root') or ''
    absent = list(_missing(f'{place}.data_root', root))
    yield from absent
    if absent:  # so is all that should lie in it
        return
    yield from _missing(f'{place}.ann_file', dataset.get('ann_file'), root)
    for name, prefix in (dataset.get('data_prefix') or {}).items():
        yield from _missing(f'{place}.data_prefix.{name}', prefix, root)


def _missing(place: str, value: Any, root: str = '') -> Iterator[str]:
    """Join paths as MMEngine's `BaseDataset` does; a path with a scheme is not on this disk."""
    if not value or not isinstance(value, str) or '://' in root + value:
        return
    if not os.path.exists(path := os.path.join(root, value)):
        where = '' if os.path.isabs(path) else f' (looked from {Path.cwd()})'
        yield (
            f'{place}: {path!r} does not exist{where}; put the data there, or change the place by '
            f'options=...'
        )


def pipeline_of(config: Config, splits: Sequence[str]) -> list[dict[str, Any]]:
    """Find the transforms of a config's first dataset among these splits, or raise a ValueError."""
    loaders = (config.get(f'{split}_dataloader') or {} for split in splits)
    datasets = (each for loader in loaders for _, each in dataset_configs(loader, ''))
    pipeline = next((each['pipeline'] for each in datasets if each.get('pipeline')), None)
    if pipeline is None:
        raise ValueError(
            'the config has neither test_dataloader nor val_dataloader, and so no pipeline for '
            'images'
        )
    return pipeline


def pads_with_black(config: Config) -> bool:
    """Whether a config pads images with black pixels, before it normalises them."""
    loaders = [config.get(f'{split}_dataloader') or {} for split in ('val', 'test', 'train')]
    steps = (node for _, node, _ in nodes(loaders))
    return any(type_name(step) == 'PadWithBlack' for step in steps)


def metainfo_of(dataset: dict[str, Any], scope: str | None) -> dict[str, Any]:
    """The metainfo that a dataset will have when it is built, from its config and its type."""
    kinds = find_registered(dataset.get('type'), scope)
    load = next((each._load_metainfo for each in kinds if hasattr(each, '_load_metainfo')), None)
    return {} if load is None else load(dataset.get('metainfo'))


def class_names_and_colors(metainfo: dict[str, Any]) -> tuple[list[str], np.ndarray]:
    """Names of a dataset's classes, and their colours: (256, 3) uint8 or longer, RGB by label.

    Colours that `metainfo` lacks are drawn at random, always the same.
    """
    classes = [str(name) for name in metainfo.get('classes') or ()]
    colors = np.random.default_rng(0).integers(40, 256, (max(256, len(classes)), 3), dtype=np.uint8)
    palette = metainfo.get('palette')
    if palette is not None and not isinstance(palette, str) and len(palette):
        known = np.asarray(palette, dtype=np.uint8).reshape(-1, 3)[: len(colors)]
        colors[: len(known)] = known
    return classes, colors


def build_dataset(config: Config, split: str) -> Any:
    """The dataset of a config's dataloader; wrappers such as `ConcatDataset` stay around it.

    Raises:
        ValueError: If there is no such dataset, or it cannot be built.
        OSError: If its files are not there.
    """
    wanted = (config.get(f'{split}_dataloader') or {}).get('dataset')
    if not wanted:
        raise ValueError(f'{config.filename} has no {split}_dataloader: choose another split=...')
    provide_data(config, [split])
    use_scope(config)
    try:
        with quiet_log(), quiet_prints():
            return DATASETS.build(copy.deepcopy(wanted))
    except Exception as error:  # each library has its own
        place = f'{split}_dataloader.dataset of {config.filename}'
        raise ValueError(f'{place}: {describe(error)}') from error


def provide_data(config: Config, splits: Sequence[str]) -> None:
    """Draw the built-in data if the config wants them; an `OSError` for data that are missing."""
    if config.get('builtin_data'):
        with quiet_log(), quiet_prints():
            write_shapes(**config.builtin_data)
    for line in missing_data(Facts.of(config, splits)):
        raise FileNotFoundError(line)


def dataset_images(config: str, options: Sequence[str], split: str) -> list[Path]:
    """Images of the dataset of an mmdet or mmseg config, in its order, each one once.

    Raises:
        ValueError: If there is no such dataset, it cannot be built, or it is empty.
        OSError: If its files are not there.
    """
    dataset = build_dataset(load_config(config, options), split)
    try:
        with quiet_prints():
            found = [_images(leaf) for leaf in leaf_datasets(dataset)]
    except Exception as error:  # each class has its own
        raise ValueError(f'{split}_dataloader.dataset of {config}: {describe(error)}') from error
    paths = [Path(path) for paths in found for path in paths]
    for leaf, of_leaf in zip(leaf_datasets(dataset), found, strict=True):
        if not of_leaf:
            raise ValueError(f'{split}_dataloader.dataset of {config}: {why_empty(leaf)}')
    return list(dict.fromkeys(paths))


def _images(dataset: object) -> list[str]:
    dataset.full_init()
    return [dataset.get_data_info(index)['img_path'] for index in range(len(dataset))]
