"""Your own COCO files, written anew as mmdet and pycocotools need them."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vit_backbones.images import UnreadableImageError, image_size
from vit_backbones.objects import Kept, Survey, kept_of, taken
from vit_backbones.own_data.categories import join_categories, odd_categories
from vit_backbones.own_data.common import OwnData, colours, counted, hold_out
from vit_backbones.own_data.mending import read_mended
from vit_backbones.terminal import progress

# Where a folder has its COCO file of a split, the first that exists: COCO, Roboflow
_PLACES = (
    'annotations/instances_{}*.json',
    'annotations/{}*.json',
    'instances_{}*.json',
    '{}*.json',
    '{}*/*.json',
)
_TURNED = (
    '; a photo is shown as its EXIF orientation turns it: write the images anew without that '
    'orientation if the labels fit the stored pixels, else exchange width and height'
)
_RESIZED = ': the labels are in the pixels of other files; take those, or scale the labels'
_MASKS_GO_TO = 'configs/upernet'  # configs that take masks


def read_coco(
    data: Path,
    val_data: Path | None,
    images: Path | None,
    *,
    folder: Path,
    with_masks: bool,
    takes_rle: bool,
    filters: Mapping[str, Mapping[str, Any]],
) -> OwnData:
    """Read COCO files.

    Args:
        data: A COCO file, or a folder with those of `train` and `val`.
        val_data: The same to validate on; without it and without a `val` in `data`, every fifth
            image is held out.
        images: Folder of the images, or of one folder per split; by default around the files.
        folder: Absolute folder for the files of the splits.
        with_masks: The config learns masks, so that each object must have one.
        takes_rle: As in `survey_of`.
        filters: `filter_cfg` and `indices` of the config's dataset of each split.
    """
    paths, warnings = _paths(data, val_data), []
    held_out = 'val' not in paths
    options = dict(with_masks=with_masks, takes_rle=takes_rle)
    contents, prefixes, num_objects = {}, {}, {}
    for split, path in paths.items():
        measured = held_out or split == 'val'
        contents[split], num_objects[split], found = read_mended(path, measured=measured, **options)
        prefixes[split] = _find_images(path, contents[split]['images'], images)
        _check_sizes(path, contents[split]['images'], prefixes[split])
        warnings += [f'{path}: {line}' for line in found]
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
    number = {split: len(content['images']) for split, content in contents.items()}
    in_val = len(taken(number['val'], filters['val']['indices']))
    return OwnData(
        source=paths['train'],
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


def _paths(data: Path, val_data: Path | None) -> dict[str, Path]:
    """The COCO file of each split, without that of `val` where there is none."""
    paths = {'train': _find(data, 'train')}
    if val_data is not None:
        paths['val'] = _find(val_data, 'val')
    elif data.is_dir() and (found := _find_in(data, 'val')):
        paths['val'] = found
    return paths


def _find(data: Path, split: str) -> Path:
    """The COCO file of a split."""
    if data.is_file():
        return data
    if not data.is_dir():
        raise FileNotFoundError(f'{str(data)!r} does not exist (looked from {Path.cwd()})')
    found = _find_in(data, split)
    if found:
        return found
    every = sorted([*data.glob('*.json'), *data.glob('annotations/*.json')])
    if len(every) == 1:
        return every[0]
    raise ValueError(
        f'folder {str(data)!r} has no COCO file of {split!r}, such as {split}.json or '
        f'annotations/instances_{split}.json, but {counted(len(every), ".json file")}: name the '
        f"file itself; folders of masks are for mmseg's configs, such as those of {_MASKS_GO_TO}"
    )


def _find_in(data: Path, split: str) -> Path | None:
    for place in _PLACES:
        found = sorted(data.glob(place.format(split)))
        if len(found) > 1:
            raise ValueError(
                f'folder {str(data)!r} has {len(found)} COCO files of {split!r} '
                f'({", ".join(path.name for path in found[:3])}): name the file itself'
            )
        if found:
            return found[0]
    return None


def _split(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for images in hold_out(content['images']):
        ids = {image['id'] for image in images}
        annotations = [each for each in content['annotations'] if each['image_id'] in ids]
        yield content | dict(images=images, annotations=annotations)


def _find_images(path: Path, entries: Sequence[dict], images: Path | None) -> Path:
    """The folder that holds the images of a COCO file, all of them."""
    split = path.stem.rsplit('_', 1)[-1]  # instances_train2017: train2017
    around = [path.parent, path.parent.parent] if images is None else [images]
    subfolders = ('', 'images', split, f'images/{split}') if images is None else ('', split)
    places = [(base / sub).absolute() for base in around for sub in subfolders]
    first = entries[0]['file_name']
    folder = next((place for place in places if (place / first).is_file()), None)
    if folder is None:
        above = ' and the one above' if images is None else ''
        raise FileNotFoundError(
            f'the {counted(len(entries), "image")} of {str(path)!r}, the first of which is '
            f'{first!r}, were not found in {around[0].absolute()}{above}, nor in '
            f'{", ".join(f"{sub}/" for sub in subfolders[1:])} there: name their folder by '
            f'images=...'
        )
    missing = [e['file_name'] for e in entries if not (folder / e['file_name']).is_file()]
    if missing:
        raise FileNotFoundError(
            f'{len(missing)} of {counted(len(entries), "image")} of {str(path)!r} are not in '
            f'{folder}, the first is {missing[0]!r}: put them there, or remove them from the file'
        )
    return folder


def _check_sizes(path: Path, entries: Sequence[dict[str, Any]], folder: Path) -> None:
    """Refuse images of another size than the file gives them, as they are shown."""
    with progress() as bar, ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        sizes = pool.map(_shown_size, [folder / each['file_name'] for each in entries])
        read = list(bar.track(sizes, len(entries), description='reading sizes'))
    pairs = zip(entries, read, strict=True)
    other = [(e, s) for e, s in pairs if s and s != (e['height'], e['width'])]
    if not other:
        return
    first, (height, width) = other[0]
    turned = [each for each, size in other if size == (each['width'], each['height'])]
    names = ', '.join(each['file_name'] for each, _ in other[:3]) + ', ...' * (len(other) > 3)
    raise ValueError(
        f'{len(other)} of {counted(len(entries), "image")} of {str(path)!r} have another size than '
        f'it says ({names}): the first is {width}x{height}, not {first["width"]}x{first["height"]}'
        + (_TURNED if len(turned) == len(other) else _RESIZED)
    )


def _shown_size(path: Path) -> tuple[int, int] | None:
    """(H, W) of an image, turned as its EXIF says; `None` if it cannot be read."""
    try:
        return image_size(path)
    except UnreadableImageError:
        return None  # the training leaves out a few
