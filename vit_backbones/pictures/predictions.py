"""Pictures of predictions beside the ground truth of a config's dataset."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS
from mmengine.structures import BaseDataElement
from PIL import Image
from rich.progress import track

from vit_backbones.checks import preflight
from vit_backbones.checks.findings import describe
from vit_backbones.images import read_image
from vit_backbones.inference.running import pipeline_of
from vit_backbones.inference.trained import Trained
from vit_backbones.loading import quiet_log
from vit_backbones.pictures.panels import draw_panels
from vit_backbones.pictures.samples import draw_overlay, enlarged, with_legend
from vit_backbones.pictures.views import Picture
from vit_backbones.runner import quiet_prints
from vit_backbones.shapes import write_shapes

_PANEL_SIDE = 1024  # larger images are shrunk to it


def draw_predictions(
    trained: Trained, *, split: str = 'val', num: int = 8, score_thr: float = 0.3
) -> Iterator[Picture]:
    """Draw image | ground truth | prediction, with a legend of the classes.

    Args:
        trained: The model.
        split: `'train'`, `'val'` or `'test'`: the dataset of this dataloader of the config. Images
            to train on come as those to validate on: neither cropped nor mirrored.
        num: So many images, spread evenly over it.
        score_thr: Predicted instances with a lower score are left out.

    Yields:
        Name and picture of each image.

    Raises:
        ValueError: If the config has no such dataset, or it cannot be built.
        OSError: If its files are not there.
    """
    if split == 'train' and trained.config.get('train_dataloader'):
        trained = trained._replace(config=_unchanged(trained.config))
    dataset = _dataset(trained, split)
    count = min(num, len(dataset))
    for i in track([i * len(dataset) // count for i in range(count)], description='predicting'):
        with torch.no_grad():
            [sample] = trained.model.test_step(pseudo_collate([dataset[i]]))
        yield f'{i:05d}_{Path(sample.img_path).stem}', _draw(sample, trained, score_thr)


def _draw(sample: BaseDataElement, trained: Trained, score_thr: float) -> Image.Image:
    looks = trained.classes, trained.palette
    image = read_image(sample.img_path)[..., ::-1]  # BGR
    truth, prediction = (
        draw_overlay(image, sample, kind, *looks, score_thr) for kind in ('gt', 'pred')
    )
    panels = ('image', enlarged(image)), ('ground truth', truth), ('prediction', prediction)
    row = draw_panels([[(title, panel[..., ::-1]) for title, panel in panels]], _PANEL_SIDE)
    drawn = with_legend(np.asarray(row)[..., ::-1], sample, *looks, score_thr)
    return Image.fromarray(np.ascontiguousarray(drawn[..., ::-1]))


def _unchanged(config: Config) -> Config:
    """The config, with the images to train on as they are, each once."""
    config = copy.deepcopy(config)
    loader = config.train_dataloader
    datasets = [dataset for _, dataset in preflight.dataset_configs(loader, '')]
    for dataset in datasets:
        dataset.pipeline = pipeline_of(config, ('val', 'test'))
    joined = dict(type='ConcatDataset', datasets=datasets)
    loader.dataset = joined if len(datasets) > 1 else datasets[0]
    return config


def _dataset(trained: Trained, split: str) -> Any:
    """The dataset that a config evaluates on, built."""
    config = trained.config
    loader = config.get(f'{split}_dataloader')
    if not loader:
        raise ValueError(f'the config has no {split}_dataloader')
    if config.get('builtin_data'):
        with quiet_log(), quiet_prints():
            write_shapes(**config.builtin_data)
    for line in preflight.missing_data(config, [split]):
        raise FileNotFoundError(line)
    try:
        with quiet_log(), quiet_prints():
            return DATASETS.build(loader.dataset)
    except Exception as error:  # each library has its own
        raise ValueError(f'{split}_dataloader.dataset: {describe(error)}') from error
