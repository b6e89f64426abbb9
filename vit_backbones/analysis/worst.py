"""Pictures of the images that a model does worst on."""

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import mmcv
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from vit_backbones.analysis.confusion import SCORE_THR
from vit_backbones.analysis.curves import png
from vit_backbones.analysis.predictions import Predictions
from vit_backbones.files import write_whole
from vit_backbones.pictures.samples import draw_sample

_IN_A_ROW = 2  # pictures of three panels each
_MAX_NAMED = 40  # classes in the legend


def write_worst(result: Predictions, folder: Path, title: str) -> list[Path]:
    """Draw image | ground truth | prediction of the worst images, and all of them on one sheet.

    Args:
        result: What the model predicted.
        folder: For `worst/RANK_SCORE_NAME.png` and `worst.png`; pictures of an earlier analysis
            there are replaced.
        title: Of the sheet.

    Returns:
        The files, the sheet last; none without images.
    """
    (folder / 'worst.png').unlink(missing_ok=True)
    for old in (folder / 'worst').glob('[0-9]*_[01].[0-9][0-9][0-9]_*.png'):
        old.unlink()
    classes = result.classes if len(result.classes) > 1 else ['']  # a single one needs no name
    files, pictures, names = [], [], []
    for rank, (score, sample) in enumerate(result.worst, start=1):
        image = mmcv.imread(sample.img_path)
        picture = draw_sample(image, sample, classes, result.palette, score_thr=SCORE_THR)
        stem = Path(sample.img_path).stem
        file = folder / 'worst' / f'{rank:02}_{score:.3f}_{stem}.png'
        files.append(write_whole(file, cv2.imencode('.png', picture)[1].tobytes()))
        pictures.append(picture[..., ::-1])
        names.append(f'{rank}. {stem}: {score:.3f}')
    if not files:
        return []
    legend = dict(zip(result.classes, result.palette / 255, strict=False))
    sheet = draw_sheet(pictures, names, title, legend if len(legend) <= _MAX_NAMED else {})
    return [*files, write_whole(folder / 'worst.png', png(sheet))]


def draw_sheet(
    pictures: Sequence[np.ndarray],
    names: Sequence[str],
    title: str,
    legend: dict[str, np.ndarray],
) -> Figure:
    """Draw pictures on one sheet.

    Args:
        pictures: Each (H, W, 3) uint8, RGB.
        names: What stands above each.
        title: What stands above all.
        legend: Colours, 0 to 1, by class.
    """
    columns = min(_IN_A_ROW, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    width = 7.5
    height = width * float(np.median([each.shape[0] / each.shape[1] for each in pictures])) + 0.3
    below = 0.3 * math.ceil(len(legend) / 8)
    size = (columns * width, rows * height + 0.5 + below)
    figure = Figure(figsize=size, dpi=100, layout='constrained')
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis('off')
    for axes, picture, name in zip(grid, pictures, names, strict=False):
        axes.imshow(picture)
        axes.set_title(name, fontsize=11)
    figure.suptitle(f'{title}\nimage | ground truth | prediction', fontsize=12)
    if legend:
        handles = [Patch(color=color, label=name) for name, color in legend.items()]
        figure.legend(handles=handles, loc='outside lower center', ncols=8, frameon=False)
    return figure
