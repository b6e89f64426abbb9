"""Folders of your own images and label masks."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from vit_backbones.errors import counted, some
from vit_backbones.own_data.absent import no_masks
from vit_backbones.own_data.bands import bands_of
from vit_backbones.own_data.class_names import check_classes, class_names
from vit_backbones.own_data.common import SPLITS, OwnData, colours, hold_out
from vit_backbones.own_data.mask_reading import IGNORED, Mask, read_all

_IMAGES = ('images',)
MASKS = ('masks', 'annotations', 'labels')
_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
MASK_SUFFIXES = ('.png', '.tif', '.tiff', '.PNG', '.TIF', '.TIFF')  # the first there is
OBJECTS_GO_TO = 'configs/vitdet and configs/mask2former'  # configs that learn them


class Pairs(NamedTuple):
    """Images and masks of the same names, in two absolute folders."""

    images: Path
    masks: Path
    names: list[str]  # paths below either, sorted and without suffix
    suffix: str  # that of the images
    mask_suffix: str

    def image_files(self) -> list[Path]:
        """The images, in the order of the names."""
        return [self.images / f'{name}{self.suffix}' for name in self.names]

    def mask_files(self) -> list[Path]:
        """The masks, likewise."""
        return [self.masks / f'{name}{self.mask_suffix}' for name in self.names]


def read_masks(
    data: Path, val_data: Path | None, *, folder: Path, measures_bands: bool = True
) -> OwnData:
    """Read a folder of images and masks, and all the masks in it.

    Args:
        data: Has `images` and `masks` (or `annotations`, `labels`), maybe with `train` and `val` in
            each, and maybe `classes.txt`, a name per line; else the labels found are the classes.
        val_data: The same to validate on; without it and without a `val` in `data`, every fifth
            image is held out.
        folder: Absolute folder for the lists of the splits.
        measures_bands: Read images of other bands than 8-bit RGB too, for their mean and std.
    """
    pairs = {'train': _find(data, 'train')}
    if val_data is not None:
        pairs['val'] = _find(val_data, 'val')
    elif any((data / _IMAGES[0] / name).is_dir() for name in SPLITS['val']):
        pairs['val'] = _find(data, 'val')
    masks = {
        split: read_all(each.image_files(), each.mask_files()) for split, each in pairs.items()
    }
    held_out = 'val' not in pairs
    if held_out:
        whole = pairs['train']
        for split, names in zip(('train', 'val'), hold_out(whole.names), strict=True):
            pairs[split] = whole._replace(names=names)
        masks['train'], masks['val'] = hold_out(masks['train'])
    number = {split: len(each.names) for split, each in pairs.items()}
    every = [mask for split in ('train', 'val') for mask in masks[split]]
    classes = _classes(data, every)
    if val_data is not None:
        check_classes(data, val_data, classes)
    _check_learnable(data, masks['train'])
    bands = None
    if measures_bands:
        bands = bands_of(data, *(pairs[split].image_files() for split in ('train', 'val')))
    palette = next((mask.palette for mask in every if len(mask.palette) >= len(classes)), [])
    return OwnData(
        source=data,
        classes=classes,
        palette=palette[: len(classes)] or colours(len(classes)),
        datasets={
            split: dict(
                type='mmseg.BaseSegDataset',
                ann_file=str(folder / f'{split}.txt'),
                data_prefix=dict(img_path=str(each.images), seg_map_path=str(each.masks)),
                img_suffix=each.suffix,
                seg_map_suffix=each.mask_suffix,
            )
            for split, each in pairs.items()
        },
        files={
            folder / f'{split}.txt': ''.join(f'{name}\n' for name in each.names).encode()
            for split, each in pairs.items()
        },
        num_images=number,
        num_listed=number,
        held_out=held_out,
        same_size=len({mask.size for mask in masks['val']}) == 1,
        warnings=[*_absent(data, classes, masks['train']), *(bands.warnings if bands else ())],
        bands=bands,
    )


def _find(data: Path, split: str) -> Pairs:
    """The pairs of a split: those in its subfolder if there is one, else all."""
    if data.is_file():
        raise ValueError(
            f"{str(data)!r} is a file, and mmseg's configs take a folder of images and masks; a "
            f"COCO file is for mmdet's configs, such as those of {OBJECTS_GO_TO}"
        )
    if not data.is_dir():
        raise FileNotFoundError(f'{str(data)!r} does not exist (looked from {Path.cwd()})')
    images, masks = (_subfolder(data, names, split) for names in (_IMAGES, MASKS))
    names, suffix = _names_of(images)
    by_suffix = defaultdict(set)
    for name, end in _files(masks):
        by_suffix[end].add(name)
    ends = [end for end in MASK_SUFFIXES if end in by_suffix]
    if not ends:
        raise ValueError(
            f"{str(masks)!r} has no mask: one .png per image, of the image's name; a COCO file is "
            f"for mmdet's configs, such as those of {OBJECTS_GO_TO}"
        )
    _check_partners(images, masks, set(names), by_suffix[ends[0]])
    return Pairs(images, masks, names, suffix, ends[0])


def _subfolder(data: Path, names: Sequence[str], split: str) -> Path:
    folder = next((data / name for name in names if (data / name).is_dir()), None)
    if folder is None:
        raise FileNotFoundError(no_masks(data, ' or '.join(names)))
    places = {s: next((p for n in SPLITS[s] if (p := folder / n).is_dir()), None) for s in SPLITS}
    if split == 'train' and places['val'] and not places['train']:
        raise FileNotFoundError(f'{str(folder)!r} has {places["val"].name}, but no train')
    return (places[split] or folder).absolute()


def _names_of(images: Path) -> tuple[list[str], str]:
    """The sorted names of images, and their suffix."""
    suffixes = {name: end for name, end in _files(images) if end.lower() in _SUFFIXES}
    if not suffixes:
        raise ValueError(f'{str(images)!r} has no image ({", ".join(_SUFFIXES)})')
    found = Counter(suffixes.values()).most_common()
    if len(found) > 1:
        raise ValueError(
            f'the images of {str(images)!r} have several suffixes '
            f'({", ".join(f"{n} {suffix}" for suffix, n in found)}), and mmseg takes one: rename '
            f'or convert them'
        )
    return sorted(suffixes), found[0][0]


def mask_files(folder: Path) -> list[str]:
    """Paths without suffix of the masks below a folder."""
    return [name for name, suffix in _files(folder) if suffix in MASK_SUFFIXES]


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    """(path without suffix, suffix) of each file below a folder."""
    for path in folder.rglob('*'):
        if path.is_file() and path.name[0] != '.':
            yield path.relative_to(folder).with_suffix('').as_posix(), path.suffix


def _check_partners(images: Path, masks: Path, named: set[str], labelled: set[str]) -> None:
    for what, single, where, partner in (
        ('image', named - labelled, images, masks),
        ('mask', labelled - named, masks, images),
    ):
        if single:
            raise FileNotFoundError(
                f'{counted(len(single), what)} of {str(where)!r} without a partner of that name in '
                f'{str(partner)!r}, the first is {min(single)!r}: add partners, or remove these'
            )


def _classes(data: Path, masks: Sequence[Mask]) -> list[str]:
    """Names from `classes.txt`, else one for each label found."""
    path = data / 'classes.txt'
    if path.is_file():
        names = class_names(path)
        where = f'{str(path)!r} names {counted(len(names), "class")}'
    else:
        found = sorted(set().union(*(mask.labels for mask in masks)))
        names = [f'class_{i}' for i in range(len(found))]
        where = f'the masks in {str(data)!r} contain only {_held(masks)}'
        _check_gaps(data, found)
    if len(names) < 2:
        raise ValueError(
            f'{where}; at least two classes are needed, counting the background. Label objects 1, '
            f'2, ... ({IGNORED} is ignored)'
        )
    for mask in masks:
        if max(mask.labels, default=0) >= len(names):
            raise ValueError(
                f'mask {str(mask.path)!r} holds {max(mask.labels)}, and {where}, 0 to '
                f'{len(names) - 1} ({IGNORED} is ignored): name all classes, the background too'
            )
    return names


def _check_learnable(data: Path, masks: Sequence[Mask]) -> None:
    if len(set().union(*(mask.labels for mask in masks))) < 2:
        raise ValueError(
            f'the masks to train on in {str(data)!r} contain only {_held(masks)}, so there is '
            f'nothing to tell apart: label objects 1, 2, ... beside the background, 0'
        )


def _absent(data: Path, classes: Sequence[str], masks: Sequence[Mask]) -> Iterator[str]:
    """A line for classes that no mask to train on holds."""
    labels = set().union(*(mask.labels for mask in masks))
    names = [name for label, name in enumerate(classes) if label not in labels]
    if names:
        yield (
            f'{str(data)!r}: no mask to train on holds {some(names, 5)} '
            f'({counted(len(names), "class")} of {len(classes)}): never learned; add images, or '
            f'name only the classes that there are'
        )


def _held(masks: Sequence[Mask]) -> str:
    """The labels of masks that hold one or none."""
    held = [f'label {label}' for label in set().union(*(mask.labels for mask in masks))]
    ignored = [f'{IGNORED}, which is ignored'] * any(mask.ignores for mask in masks)
    return ' and '.join(held + ignored)


def _check_gaps(data: Path, found: Sequence[int]) -> None:
    gaps = sorted(set(range(max(found, default=0))) - set(found))
    if gaps:
        raise ValueError(
            f'the masks in {str(data)!r} hold {some(found, 8)}, and no pixel is {gaps[0]}: '
            f'number the classes from 0 without gaps; if class {gaps[0]} occurs nowhere, name '
            f'all classes in classes.txt there, one per line'
        )
