"""Pictures of predictions beside the ground truth of a config's dataset."""

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.structures import BaseDataElement
from PIL import Image

from vit_backbones.config.datasets import build_dataset, pipeline_of
from vit_backbones.config.facts import dataset_configs
from vit_backbones.files import shortened
from vit_backbones.loaders import Reader, picture_of, reader_of
from vit_backbones.models.trained import Trained
from vit_backbones.pictures.canvas import draw_panels
from vit_backbones.pictures.overlay import draw_overlay, enlarged, shown_labels, with_legend
from vit_backbones.samples import marks_of
from vit_backbones.terminal import track

_PANEL_SIDE = 1024  # larger images are shrunk to it


def draw_predictions(
    trained: Trained, *, split: str = 'val', num: int = 8, score_thr: float = 0.3
) -> Iterator[tuple[str, Image.Image]]:
    """Draw image | ground truth | prediction, with a legend; gives name and picture of each image.

    Args:
        split: `'train'`, `'val'` or `'test'`; images of `'train'` are neither cropped nor mirrored.
        num: Number of images, spread evenly over the dataset.
        score_thr: Predicted instances with a lower score are left out.
    """
    config = trained.config
    if split == 'train' and config.get('train_dataloader'):
        config = _unchanged(config)
    dataset = build_dataset(config, split)
    count, reader = min(num, len(dataset)), reader_of(config)
    for i in track([i * len(dataset) // count for i in range(count)], 'predicting'):
        with torch.no_grad():
            [sample] = trained.model.test_step(pseudo_collate([dataset[i]]))
        name = f'{i:05d}_{shortened(Path(sample.img_path).stem)}'
        yield name, _draw(sample, trained, reader, score_thr)


def _draw(
    sample: BaseDataElement, trained: Trained, reader: Reader, score_thr: float
) -> Image.Image:
    image, marks = picture_of(sample.img_path, reader), marks_of(sample, score_thr)
    truth, prediction = (
        draw_overlay(image, each, trained.classes, trained.palette) for each in marks
    )
    panels = ('image', enlarged(image)), ('ground truth', truth), ('prediction', prediction)
    row = np.asarray(draw_panels([panels], _PANEL_SIDE))
    return Image.fromarray(with_legend(row, shown_labels(marks), trained.classes, trained.palette))


def _unchanged(config: Config) -> Config:
    """A config with each training image once, without augmentation."""
    config = copy.deepcopy(config)
    loader = config.train_dataloader
    datasets = [dataset for _, dataset in dataset_configs(loader, '')]
    for dataset in datasets:
        dataset.pipeline = pipeline_of(config, ('val', 'test'))
    joined = dict(type='ConcatDataset', datasets=datasets)
    loader.dataset = joined if len(datasets) > 1 else datasets[0]
    return config
