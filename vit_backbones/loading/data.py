"""The data sets of configs, built."""

import copy
from collections.abc import Sequence
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from vit_backbones.checks.findings import describe
from vit_backbones.config import use_scope
from vit_backbones.datasets import missing_data
from vit_backbones.quiet import quiet_log, quiet_prints
from vit_backbones.shapes import write_shapes


def build_dataset(config: Config, split: str) -> Any:
    """The dataset of a config's dataloader; wrappers such as `ConcatDataset` stay around it.

    Args:
        config: The merged config.
        split: `'train'`, `'val'` or `'test'`.

    Raises:
        ValueError: If there is no such dataset, or it cannot be built.
        OSError: If its files are not there.
    """
    wanted = (config.get(f'{split}_dataloader') or {}).get('dataset')
    if not wanted:
        raise ValueError(f'{config.filename} has no {split}_dataloader: choose another --split')
    provide_data(config, [split])
    use_scope(config)
    try:
        with quiet_log(), quiet_prints():
            return DATASETS.build(copy.deepcopy(wanted))
    except Exception as error:  # each library has its own
        raise ValueError(
            f'{split}_dataloader.dataset of {config.filename}: {describe(error)}'
        ) from error


def provide_data(config: Config, splits: Sequence[str]) -> None:
    """Draw the built-in data if the config wants them, and refuse data that are not there.

    Args:
        config: The merged config.
        splits: Which dataloaders and evaluators count, of `'train'`, `'val'` and `'test'`.

    Raises:
        OSError: If files are missing, or cannot be written.
    """
    if config.get('builtin_data'):
        with quiet_log(), quiet_prints():
            write_shapes(**config.builtin_data)
    for line in missing_data(config, splits):
        raise FileNotFoundError(line)
