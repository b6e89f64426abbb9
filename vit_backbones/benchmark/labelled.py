"""Images with a class for each pixel, from a config or a folder."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATASETS

from vit_backbones.config.datasets import provide_data
from vit_backbones.config.explain import describe
from vit_backbones.config.facts import dataset_configs
from vit_backbones.config.loading import load_config
from vit_backbones.files import write_whole
from vit_backbones.images import image_size
from vit_backbones.own_data.kinds import check_masks
from vit_backbones.own_data.masks import read_masks

IGNORED = 255  # label that neither the probe nor the metric counts
_SPLITS = ('train', 'val')
# Only the lists of mmseg's datasets are needed; mmdet has one of the same name
_BARE = dict(_scope_='mmseg', pipeline=[], serialize_data=False)


class Labelled(NamedTuple):
    """An image, and mmseg's entry for it, which gives the place of its labels."""

    image: Path
    info: dict[str, Any]

    def labels(self) -> np.ndarray:
        """Read (H, W) uint8: the number of each pixel's class, or `IGNORED`."""
        labels = LoadAnnotations()(dict(self.info))['gt_seg_map']
        size = image_size(self.image)
        if labels.shape != tuple(side for side in size if side > 1):  # mmseg squeezes them
            raise ValueError(
                f'{self.info["seg_map_path"]} has {labels.shape} pixels, its image {size}: make '
                f'them equal'
            )
        return labels.reshape(size)


class LabelledData(NamedTuple):
    """Images to fit a linear probe on and to test it, named in a few words."""

    name: str
    classes: list[str]
    train: list[Labelled]
    val: list[Labelled]


def read_data(data: str | Path, options: Sequence[str] = ()) -> LabelledData:
    """Find the images of a config or of a folder.

    Args:
        data: An mmseg config, of which only the datasets are used (the built-in ones are drawn if
            they are missing); or a folder as `vit_backbones.own_data` takes it for mmseg.
        options: `key=value` changes of the config.

    Raises:
        OSError, ValueError: If files are missing, or lack a class for each pixel.
    """
    if Path(data).is_dir():
        if options:
            raise ValueError(f'options=... change a config, and {data} is a folder of data')
        return _of_folder(Path(data))
    config = load_config(data, options)
    scope = config.get('default_scope')
    if scope != 'mmseg':
        raise ValueError(
            f'{data}: a linear probe needs a class for each pixel, as configs of mmseg have it; '
            f'the default_scope of this one is {scope!r}'
        )
    provide_data(config, _SPLITS)
    built = {split: _built(data, config, split) for split in _SPLITS}
    roots = {Path(each.data_root or each.data_prefix['img_path']).name for each in built['val']}
    return _joined(' + '.join(sorted(roots)), built)


def _of_folder(folder: Path) -> LabelledData:
    check_masks(folder)
    with tempfile.TemporaryDirectory() as lists:
        own = read_masks(folder, None, folder=Path(lists))
        if own.bands:
            raise ValueError(
                f'{str(folder)!r} holds images of {own.bands.shown}, and probes are of 8-bit RGB: '
                f'train a config on them'
            )
        for path, content in own.files.items():
            write_whole(path, content)
        metainfo = dict(classes=own.classes, palette=own.palette)
        built = {
            split: [DATASETS.build(asked | dict(metainfo=metainfo) | _BARE)]
            for split, asked in own.datasets.items()
        }
    return _joined(folder.resolve().name, built)


def _built(data: str | Path, config: Config, split: str) -> list[BaseSegDataset]:
    found = []
    for place, asked in dataset_configs(config.get(f'{split}_dataloader') or {}, split):
        try:
            built = DATASETS.build(asked | _BARE)
        except Exception as error:  # each class has its own
            raise ValueError(f'{data}: {place}: {describe(error)}') from error
        found.append(built)
    if not found or not all(isinstance(each, BaseSegDataset) for each in found):
        kinds = ', '.join(type(each).__name__ for each in found) or 'none'
        raise ValueError(
            f'{data}: the linear probe needs datasets of mmseg to train and to validate on; '
            f'{split}_dataloader has: {kinds}'
        )
    return found


def _joined(name: str, built: dict[str, list[BaseSegDataset]]) -> LabelledData:
    splits = {
        split: [
            Labelled(Path(each['img_path']), each)
            for dataset in datasets
            for each in (dataset[i] for i in range(len(dataset)))
        ]
        for split, datasets in built.items()
    }
    classes = built['train'][0].metainfo.get('classes')
    if not classes:
        raise ValueError(f'{name}: the dataset to train on names no classes: set its metainfo')
    return LabelledData(name, list(classes), **splits)
