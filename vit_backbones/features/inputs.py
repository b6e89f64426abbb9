"""The images of a config's dataset."""

from collections.abc import Sequence
from pathlib import Path

from vit_backbones.checks.findings import describe
from vit_backbones.config import load_config
from vit_backbones.datasets import leaf_datasets
from vit_backbones.loading.data import build_dataset
from vit_backbones.quiet import quiet_prints


def dataset_images(config: str, options: Sequence[str], split: str) -> list[Path]:
    """Images of `SPLIT_dataloader.dataset`, in its order, each one once.

    Args:
        config: Path of an mmdet or mmseg config.
        options: `key=value` changes of it.
        split: `'train'`, `'val'` or `'test'`.

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
    if not paths:
        raise ValueError(f'{split}_dataloader.dataset of {config} holds no image')
    return list(dict.fromkeys(paths))


def _images(dataset: object) -> list[str]:
    dataset.full_init()
    return [dataset.get_data_info(index)['img_path'] for index in range(len(dataset))]
