"""Your own labels of objects, written anew as mmdet and pycocotools need them."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vit_backbones.objects import Kept, Survey, kept_of, taken
from vit_backbones.own_data.categories import join_categories, odd_categories
from vit_backbones.own_data.class_names import check_classes
from vit_backbones.own_data.common import Labels, OwnData, colours, counted, hold_out
from vit_backbones.own_data.mending import mended


def own_objects(
    labels: Mapping[str, Labels],
    *,
    folder: Path,
    with_masks: bool,
    takes_rle: bool,
    filters: Mapping[str, Mapping[str, Any]],
) -> OwnData:
    """Own data of labels by split; without those of `val`, every fifth image is held out.

    Args:
        labels: Of `'train'`, and maybe of `'val'`.
        folder: Absolute folder for the files of the splits.
        with_masks: The config learns masks, so that each object must have one.
        takes_rle: As in `survey_of`.
        filters: `filter_cfg` and `indices` of the config's dataset of each split.
    """
    paths = {split: each.path for split, each in labels.items()}
    held_out = 'val' not in paths
    options = dict(with_masks=with_masks, takes_rle=takes_rle)
    contents, prefixes, num_objects, warnings = {}, {}, {}, []
    for split, each in labels.items():
        measured = held_out or split == 'val'
        contents[split], num_objects[split], found = mended(
            each.path, each.read(), measured=measured, **options
        )
        prefixes[split] = each.place(contents[split])
        warnings += [*each.warnings, *(f'{each.path}: {line}' for line in found)]
    warnings += join_categories(paths, contents)
    if held_out:
        contents['train'], contents['val'] = _split(contents['train'])
        prefixes['val'] = prefixes['train']
        num_objects['train'] -= len(contents['val']['annotations'])
    for content in contents.values():  # from 1: pycocotools ignores an object of id 0
        content['annotations'] = [a | dict(id=i) for i, a in enumerate(content['annotations'], 1)]
    kept = kept_of(Survey(contents['train'], None, **options), **filters['train'])
    _check_left(paths, contents, kept)
    warnings += [f'{paths["train"]}: {line}' for line in odd_categories(contents['train'])]
    categories = contents['train']['categories']
    classes = [each['name'] for each in categories]
    for path in paths.values():
        check_classes(paths['train'], path, classes)
    number = {split: len(content['images']) for split, content in contents.items()}
    in_val = len(taken(number['val'], filters['val']['indices']))
    return OwnData(
        source=paths['train'],
        kind=labels['train'].kind,
        classes=classes,  # in the order of their ids
        palette=colours(len(classes)),
        datasets={
            split: dict(
                type='mmdet.CocoDataset',
                ann_file=str(folder / f'{split}.json'),
                data_prefix=dict(img=str(prefixes[split])),
            )
            for split in contents
        },
        files={folder / f'{s}.json': json.dumps(each).encode() for s, each in contents.items()},
        num_images=dict(train=kept.images, val=in_val),
        num_listed=number,
        held_out=held_out,
        same_size=False,  # mmdet does not need it
        objects=(kept.objects, num_objects['train']),
        warnings=warnings,
    )


def _check_left(paths: dict[str, Path], contents: dict[str, dict], kept: Kept) -> None:
    """Refuse splits without objects."""
    if not kept.objects:
        raise ValueError(
            f'{str(paths["train"])!r}: no object is left to train on, after filter_cfg and indices '
            f'of the config and the images that are held out'
        )
    if not contents['val']['annotations']:
        raise ValueError(
            f'{str(paths.get("val", paths["train"]))!r}: none of '
            f'{counted(len(contents["val"]["images"]), "image")} to validate on has an object: '
            f'give others by val_dataset=...'
        )


def _split(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for images in hold_out(content['images']):
        ids = {image['id'] for image in images}
        annotations = [each for each in content['annotations'] if each['image_id'] in ids]
        yield content | dict(images=images, annotations=annotations)
