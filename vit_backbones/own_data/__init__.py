"""Train on your own data: they replace those of a config.

`coco` and `masks` read data into an `OwnData`, which names them as configs do; `rewriting` puts it
into a config. Images stay where they are, nothing is copied.
"""

from pathlib import Path

from mmengine.config import Config

from vit_backbones.config.facts import Facts, learns_masks
from vit_backbones.files import write_whole
from vit_backbones.own_data.coco import read_coco
from vit_backbones.own_data.masks import read_masks
from vit_backbones.own_data.rewriting import check_takes_own_data, put_data

__all__ = ['use_own_data']


def use_own_data(
    cfg: Config,
    data: str | Path,
    *,
    val_data: str | Path | None = None,
    images: str | Path | None = None,
    folder: str | Path,
) -> str:
    """Put your own data into a config, and return a line on them and their classes.

    Datasets, classes, evaluators and heads change. Nothing is written after an error in the data.

    Args:
        cfg: A config of mmdet or mmseg with one dataset each to train and to validate on; changed
            in place.
        data: For mmdet a COCO file, or a folder with one to train on and one to validate on. For
            mmseg a folder with `images` and `masks`, and maybe `classes.txt`.
        val_data: The same, to validate on. By default, every fifth image of `data` is held out.
        images: Folder of the images that COCO files name, by default looked for around these.
        folder: For the lists of the images of each split: `train.json` and `val.json`, or
            `train.txt` and `val.txt`.

    Raises:
        OSError: If files are missing.
        ValueError: If the config takes no such data, or they contradict themselves.
    """
    facts = Facts.of(cfg)
    toolbox = check_takes_own_data(facts)
    data, folder = Path(data), Path(folder).absolute()
    val_data = None if val_data is None else Path(val_data)
    if toolbox == 'mmdet':
        images = None if images is None else Path(images)
        with_masks = learns_masks([cfg.train_dataloader, cfg.val_dataloader])
        own = read_coco(data, val_data, images, folder=folder, with_masks=with_masks)
    elif images is None:
        own = read_masks(data, val_data, folder=folder)
    else:
        raise ValueError('images=... is for COCO files; beside masks, images lie in images/')
    put_data(facts, own)
    for path, content in own.files.items():
        write_whole(path, content)
    return own.summary()
