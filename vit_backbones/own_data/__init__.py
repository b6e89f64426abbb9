"""Training on one's own data: what a config says of its data set is replaced by what lies there.

`coco` and `masks` read the data, each into an `OwnData`, the words that a config has for them;
`rewriting` puts these into a config. Images are left where they are, nothing is copied.
"""

from pathlib import Path

from mmengine.config import Config

from vit_backbones.files import write_whole
from vit_backbones.own_data.coco import read_coco
from vit_backbones.own_data.masks import read_masks
from vit_backbones.own_data.rewriting import check_takes_own_data, learns_masks, put_data

__all__ = ['use_own_data']


def use_own_data(
    cfg: Config,
    data: str | Path,
    *,
    val_data: str | Path | None = None,
    images: str | Path | None = None,
    folder: str | Path,
) -> str:
    """Point a config at one's own data: data sets, classes, evaluators, heads.

    Args:
        cfg: A config of mmdet or mmseg with one data set each to train and to validate on; changed
            in place, and complete afterwards.
        data: For mmdet a COCO file, or a folder with one to train on and one to validate on. For
            mmseg a folder with `images` and `masks`, and maybe `classes.txt`.
        val_data: The same, to validate on. Without any, every fifth image of `data` is.
        images: Folder of the images that COCO files name. Looked for around them by default.
        folder: Where to write which images belong to which split: `train.json` and `val.json`, or
            `train.txt` and `val.txt`.

    Returns:
        One line that says what is trained on.

    Raises:
        OSError: If files are missing.
        ValueError: If the config takes no such data, or they contradict themselves; nothing is
            written then.
    """
    toolbox = check_takes_own_data(cfg)
    data, folder = Path(data), Path(folder).absolute()
    val_data = None if val_data is None else Path(val_data)
    if toolbox == 'mmdet':
        images = None if images is None else Path(images)
        own = read_coco(data, val_data, images, folder=folder, with_masks=learns_masks(cfg))
    elif images is None:
        own = read_masks(data, val_data, folder=folder)
    else:
        raise ValueError('--images is for COCO files; beside masks, images lie in images/')
    put_data(cfg, own)
    for path, content in own.files.items():
        write_whole(path, content)
    return own.summary()
