"""Train on your own data: they replace those of a config.

`kinds` finds out their format; `object_splits` and `masks` make an `OwnData` of them, which names
them as configs do; `rewriting` puts it into a config. Images stay where they are, uncopied.
"""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from vit_backbones.config.datasets import metainfo_of
from vit_backbones.config.facts import Facts, learns_masks, nodes
from vit_backbones.files import write_whole
from vit_backbones.objects import taken
from vit_backbones.own_data.bands import keeps_bands, put_bands
from vit_backbones.own_data.common import OwnData
from vit_backbones.own_data.kept_weights import class_weights, settle_class_weights
from vit_backbones.own_data.kinds import check_masks, labels_of, unused_in
from vit_backbones.own_data.masks import read_masks
from vit_backbones.own_data.object_splits import own_objects
from vit_backbones.own_data.replaced_options import asked_values, check_asked
from vit_backbones.own_data.rewriting import check_takes_own_data, put_data

__all__ = ['Used', 'use_own_data']


class Used(NamedTuple):
    """Own data in a line, and one for each thing in them that is left out, mended or suspicious."""

    summary: str
    warnings: list[str]
    folder: Path  # of the files for the config


def use_own_data(
    cfg: Config,
    data: str | Path,
    *,
    val_data: str | Path | None = None,
    images: str | Path | None = None,
    folder: str | Path,
    options: Sequence[str] = (),
) -> Used:
    """Put your own data into a config: datasets, classes, evaluators and heads change.

    Nothing is written after an error in the data.

    Args:
        cfg: A config of mmdet or mmseg with one dataset each to train and to validate on; changed
            in place.
        data: For mmdet a COCO file, or a folder with one to train on and one to validate on; a
            `data.yaml` of YOLO, or its folder; or a folder of Pascal VOC. For mmseg a folder with
            `images` and `masks`, and maybe `classes.txt`.
        val_data: The same, to validate on. By default, every fifth image of `data` is held out.
        images: Folder of the images that COCO files name, by default looked for around these.
        folder: For the lists of the images of each split: `train.json` and `val.json`, or
            `train.txt` and `val.txt`.
        options: `key=value` changes that the config has had; own data must not replace them.

    Raises:
        OSError: If files are missing.
        ValueError: If the config takes no such data, they contradict themselves, or an option
            contradicts them.
    """
    facts, asked = Facts.of(cfg), asked_values(cfg, options)
    toolbox = check_takes_own_data(facts)
    data, folder = Path(data), Path(folder).absolute()
    val_data = None if val_data is None else Path(val_data)
    if toolbox == 'mmdet':
        images = None if images is None else Path(images)
        own = _read_objects(facts, data, val_data, images, folder)
    elif images is None:
        own = _read_masks(facts, data, val_data, folder)
    else:
        raise ValueError('images=... is for COCO files; beside masks, images lie in images/')
    others = [unused_in(each, has_masks=toolbox == 'mmseg') for each in (data, val_data) if each]
    own = own._replace(unused=list(dict.fromkeys(chain.from_iterable(others))))
    (_, train), weights = facts.datasets['train'][0], class_weights(cfg)
    is_same = tuple(metainfo_of(train, facts.scope).get('classes', ())) == tuple(own.classes)
    put_data(facts, own)
    kept = weights if is_same else asked
    left_out = settle_class_weights(cfg, weights, kept, len(own.classes))
    left_out += put_bands(cfg, own.bands) if own.bands else []
    check_asked(cfg, asked)
    for path, content in own.files.items():
        write_whole(path, content)
    return Used(own.summary(), [*own.warnings, *left_out], folder)


def _read_objects(
    facts: Facts, data: Path, val_data: Path | None, images: Path | None, folder: Path
) -> OwnData:
    loaders = [facts.config[f'{split}_dataloader'] for split in ('train', 'val')]
    (_, train), (_, val) = facts.datasets['train'][0], facts.datasets['val'][0]
    return own_objects(
        labels_of(data, val_data, images),
        folder=folder,
        with_masks=learns_masks(loaders),
        takes_rle=all(node.get('poly2mask', True) for _, node, _ in nodes(loaders[0])),
        filters=dict(
            train=dict(filter_cfg=train.get('filter_cfg'), indices=train.get('indices')),
            val=dict(indices=val.get('indices')),
        ),
    )


def _read_masks(facts: Facts, data: Path, val_data: Path | None, folder: Path) -> OwnData:
    for each in filter(None, (data, val_data)):
        check_masks(each)
    measures_bands = not keeps_bands(facts.config.train_dataloader)
    own = read_masks(data, val_data, folder=folder, measures_bands=measures_bands)
    indices = {split: facts.datasets[split][0][1].get('indices') for split in own.num_images}
    chosen = {split: len(taken(number, indices[split])) for split, number in own.num_images.items()}
    return own._replace(num_images=chosen)
