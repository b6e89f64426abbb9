"""Pictures of the images that a model does worst on."""

from pathlib import Path

import numpy as np
from PIL import Image

from vit_backbones.evaluation.confusion import SCORE_THR
from vit_backbones.evaluation.testing import Predictions
from vit_backbones.files import shortened, write_whole
from vit_backbones.loaders import picture_of
from vit_backbones.pictures.canvas import Tile, draw_sheet, in_rows, png, thumbnail
from vit_backbones.pictures.overlay import draw_sample, shown_labels, with_legend
from vit_backbones.samples import marks_of

_WIDTH = 750  # of a picture of three panels on the sheet
_SHEET_WIDTH = 1600


def write_worst(result: Predictions, folder: Path, title: str) -> list[Path]:
    """Draw image | ground truth | prediction of the worst images, and all of them on one sheet.

    Writes `worst/RANK_SCORE_NAME.png` and, last, the sheet `worst.png`, and deletes pictures of an
    earlier analysis. Gives the files, none without images.
    """
    (folder / 'worst.png').unlink(missing_ok=True)
    for old in (folder / 'worst').glob('[0-9]*_[01].[0-9][0-9][0-9]_*.png'):
        old.unlink()
    classes = result.classes if len(result.classes) > 1 else ['']  # a single one needs no name
    files, tiles, shown = [], [], set()
    for rank, (score, sample) in enumerate(result.worst, start=1):
        image, stem = picture_of(sample.img_path, result.reader), Path(sample.img_path).stem
        marks = marks_of(sample, SCORE_THR)
        picture = draw_sample(image, *marks, classes, result.palette)
        file = folder / 'worst' / f'{rank:02}_{score:.3f}_{shortened(stem)}.png'
        files.append(write_whole(file, png(picture)))
        small = thumbnail(Image.fromarray(picture), _WIDTH)
        tiles.append(Tile(small, stem, f'{rank}. {score:.3f}'))
        shown.update(shown_labels(marks))
    if not files:
        return []
    (_, first), *rest = in_rows(tiles, _SHEET_WIDTH)
    sheet = draw_sheet([(f'{title}: image | ground truth | prediction', first), *rest])
    legend = with_legend(np.asarray(sheet), shown, result.classes, result.palette)
    return [*files, write_whole(folder / 'worst.png', png(legend))]
