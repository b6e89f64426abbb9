"""The images of a config's dataset."""

import copy
from collections.abc import Sequence
from pathlib import Path

from mmengine.registry import DATASETS, init_default_scope

from vit_backbones.checks.findings import describe
from vit_backbones.config import load_config
from vit_backbones.runner import quiet_prints
from vit_backbones.training.hooks import leaf_datasets


def dataset_images(config: str, options: Sequence[str], split: str) -> list[Path]:
    """Images of `SPLIT_dataloader.dataset`, in its order, each one once.

    Args:
        config: Path of an mmdet or mmseg config.
        options: `key=value` changes of it.
        split: `'train'`, `'val'` or `'test'`.

    Raises:
        ValueError: If there is no such dataset, it cannot be built, or it is empty.
    """
    loaded = load_config(config, options)
    wanted = (loaded.get(f'{split}_dataloader') or {}).get('dataset')
    if wanted is None:
        raise ValueError(f'{config} has no {split}_dataloader.dataset')
    init_default_scope(loaded.get('default_scope') or 'mmengine')
    try:
        with quiet_prints():
            dataset = DATASETS.build(copy.deepcopy(wanted))
            found = [_images(leaf) for leaf in leaf_datasets(dataset)]
    except Exception as error:  # each class has its own
        raise ValueError(f'{split}_dataloader.dataset of {config}: {describe(error)}') from error
    paths = [Path(path) for paths in found for path in paths]
    if not paths:
        raise ValueError(f'{split}_dataloader.dataset of {config} holds no image')
    return list(dict.fromkeys(paths))


def _images(dataset: object) -> list[str]:
    dataset.full_init()
    return [dataset.get_data_info(index)['img_path'] for index in range(len(dataset))]
