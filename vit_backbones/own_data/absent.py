"""What a folder without labels holds, and what it may hold, for messages."""

from pathlib import Path

from vit_backbones.errors import counted, some
from vit_backbones.images import SUFFIXES

_PAGE = 'docs/own_data.md shows all layouts'
_OBJECTS = (
    'add a COCO .json, labels/*.txt of YOLO with a data.yaml or classes.txt, or Annotations/*.xml '
    'of Pascal VOC'
)
_MASKS = 'add images/, and masks/ with a .png of class numbers for each image'
_LABELS = {'labels': '.txt', 'annotations': '.json or .xml', 'Annotations': '.xml'}
MASKS_GO_TO = 'configs/upernet'  # configs that take masks


def no_objects(data: Path, num_masks: int) -> str:
    """A line on a folder that has no objects to learn."""
    if not _visible(data):
        return f'{str(data)!r} is empty: {_OBJECTS}; {_PAGE}'
    images = counted(_num_images(data) - num_masks, 'image')
    if num_masks:
        return (
            f'{str(data)!r} holds {images}, {counted(num_masks, "mask")} and no objects, and masks '
            f"are for mmseg's configs, such as those of {MASKS_GO_TO}: take one, or {_OBJECTS}; "
            f'{_PAGE}'
        )
    bare = [f'{name}/ has no {_LABELS[name]}' for name in _LABELS if name in _visible(data)]
    why = f' ({some(bare)})' if bare else ''
    return f'{str(data)!r} holds {images} and no labels{why}: {_OBJECTS}; {_PAGE}'


def no_masks(data: Path, missing: str) -> str:
    """A line on a folder that lacks one of images or masks."""
    lacks = f'has no folder {missing}' if _visible(data) else 'is empty'
    return f'{str(data)!r} {lacks}: {_MASKS}; {_PAGE}'


def _visible(data: Path) -> set[str]:
    return {path.name for path in data.iterdir() if path.name[0] != '.'}


def _num_images(data: Path) -> int:
    every = (path for path in data.rglob('*') if path.suffix.lower() in SUFFIXES)
    return sum(not any(part[0] == '.' for part in p.relative_to(data).parts) for p in every)
