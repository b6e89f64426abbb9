"""Your own COCO files, written anew as mmdet and pycocotools need them."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vit_backbones.own_data.common import OwnData, colours, counted, hold_out

# Where a folder has its COCO file of a split, the first that exists: COCO, Roboflow
_PLACES = (
    'annotations/instances_{}*.json',
    'annotations/{}*.json',
    'instances_{}*.json',
    '{}*.json',
    '{}*/*.json',
)
# Keys that mmdet and pycocotools read and that have no default
_KEYS = {
    'images': dict(id=(int, str), file_name=str, height=int, width=int),
    'annotations': dict(image_id=(int, str), category_id=int, bbox=list),
    'categories': dict(id=int, name=(str, int)),
}
_MASKS_GO_TO = 'configs/upernet'  # configs that take masks


def read_coco(
    data: Path, val_data: Path | None, images: Path | None, *, folder: Path, with_masks: bool
) -> OwnData:
    """Read COCO files.

    Args:
        data: A COCO file, or a folder with those of `train` and `val`.
        val_data: The same to validate on; without it and without a `val` in `data`, every fifth
            image is held out.
        images: Folder of the images, or of one folder per split; by default around the files.
        folder: Absolute folder for the files of the splits.
        with_masks: The config learns masks, so that each object must have one.
    """
    paths = _paths(data, val_data)
    contents = {split: _read(path, with_masks) for split, path in paths.items()}
    prefixes = {s: _find_images(paths[s], contents[s]['images'], images) for s in paths}
    categories = _common_categories(paths, contents)
    held_out = 'val' not in contents
    if held_out:
        contents['train'], contents['val'] = _split(contents['train'])
        prefixes['val'] = prefixes['train']
    for content in contents.values():
        content['categories'] = categories
    if not contents['train']['annotations']:
        raise ValueError(
            f'{str(paths["train"])!r} has no annotation for its images: nothing to learn'
        )
    classes = [each['name'] for each in categories]
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
        num_images={split: len(content['images']) for split, content in contents.items()},
        held_out=held_out,
        same_size=False,  # mmdet does not need it
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


def _read(path: Path, with_masks: bool) -> dict[str, Any]:
    """A checked COCO file, with sorted images and the keys that pycocotools needs."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f'{str(path)!r} cannot be read as JSON ({error})') from error
    _check_keys(path, content)
    for line in _contradictions(content, with_masks):
        raise ValueError(f'{str(path)!r}: {line}')
    images = sorted(content['images'], key=lambda image: image['file_name'])
    categories = sorted(content['categories'], key=lambda category: category['id'])
    return dict(
        info=content.get('info') or {},
        images=images,
        annotations=_annotations_of(images, content['annotations']),
        categories=[dict(each, name=str(each['name'])) for each in categories],
    )


def _check_keys(path: Path, content: Any) -> None:
    """Refuse a file without the lists and keys of COCO."""
    for name, keys in _KEYS.items():
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise ValueError(
                f'{str(path)!r} is no COCO file: it has no list of {name!r}; it takes '
                f'{", ".join(map(repr, _KEYS))}'
            )
        for i, entry in enumerate(entries):
            for key, kind in keys.items():
                value = entry.get(key) if isinstance(entry, dict) else None
                if not isinstance(value, kind):
                    raise ValueError(
                        f'{str(path)!r} is no COCO file of objects: {name}[{i}] has {value!r} as '
                        f'its {key}'
                    )
        if not entries:
            raise ValueError(f'{str(path)!r} has no {name}: nothing to learn or to measure')


def _contradictions(content: dict[str, list[dict]], with_masks: bool) -> Iterator[str]:
    annotations = content['annotations']
    for name in ('images', 'categories'):
        ((most, times),) = Counter(entry['id'] for entry in content[name]).most_common(1)
        if times > 1:
            yield f'id {most!r} is that of {times} {name}: number them anew'
    boxes = (annotation['bbox'] for annotation in annotations)
    odd = [box for box in boxes if [isinstance(part, (int, float)) for part in box] != [True] * 4]
    if odd:
        yield f'bbox {odd[0]!r} is not [x, y, width, height]: correct or remove its annotation'
    known = {category['id'] for category in content['categories']}
    unknown = [a['category_id'] for a in annotations if a['category_id'] not in known]
    if unknown:
        yield (
            f'{counted(len(unknown), "annotation")} of category_id {unknown[0]!r}, which is not '
            f'among the {len(known)} categories: add it to them'
        )
    bare = sum(not annotation.get('segmentation') for annotation in annotations)
    if with_masks and bare:
        yield (
            f'{bare} of {counted(len(annotations), "annotation")} have no segmentation, and the '
            f'config learns masks: draw them, or take a config for boxes'
        )


def _annotations_of(images: Sequence[dict], annotations: Sequence[dict]) -> list[dict]:
    """The annotations of some images, numbered from 1: pycocotools ignores an object of id 0."""
    wanted = {image['id'] for image in images}
    return [
        dict(iscrowd=0, area=each['bbox'][2] * each['bbox'][3]) | each | dict(id=i)
        for i, each in enumerate((a for a in annotations if a['image_id'] in wanted), start=1)
    ]


def _split(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for images in hold_out(content['images']):
        annotations = _annotations_of(images, content['annotations'])
        yield content | dict(images=images, annotations=annotations)


def _common_categories(paths: dict[str, Path], contents: dict[str, dict]) -> list[dict]:
    """The categories to train on, which must have those to validate on under the same ids."""
    categories = contents['train']['categories']
    names = {each['id']: each['name'] for each in categories}
    for each in contents.get('val', {}).get('categories', ()):
        if names.get(each['id']) != each['name']:
            other = f'is {names[each["id"]]!r} in' if each['id'] in names else 'is missing in'
            raise ValueError(
                f'category {each["id"]} is {each["name"]!r} in {str(paths["val"])!r} and {other} '
                f'{str(paths["train"])!r}: give both files the same categories'
            )
    return categories


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
