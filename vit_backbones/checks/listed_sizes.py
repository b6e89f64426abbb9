"""Whether images have the sizes that their dataset lists, once they are decoded.

Boxes and masks lie in the listed size. An EXIF tag turns a picture when it is decoded.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from PIL import ExifTags, Image

from vit_backbones.checks.findings import Finding, error, warning
from vit_backbones.checks.looks import Look
from vit_backbones.errors import counted

_SAME_SHAPE = 0.02  # by which the two sides may be scaled apart
_NAMED = 3  # images in a line
_FIXES = {
    'turned': 'which is that of the stored pixels, before their EXIF orientation turns them: '
    'remove this tag from the files, or read stored pixels in every pipeline, by '
    "LoadImageFromFile(color_type='color_ignore_orientation')",
    'upright': 'which is that after their EXIF orientation turns them, and the pipeline reads '
    "stored pixels: use LoadImageFromFile(color_type='color')",
    'swapped': "which has width and height in each other's place: correct it, or turn the images",
    'scaled': 'which is of another scale: list the size of these images, and scale boxes and masks '
    'likewise',
    'other': 'so that boxes and masks lie elsewhere: list the objects of these images anew',
}


class Sizes(NamedTuple):
    """(width, height) of an image, and the EXIF orientation of its file."""

    path: str
    listed: tuple[int, int]
    decoded: tuple[int, int]
    orientation: int

    @property
    def difference(self) -> str | None:
        """How the sizes differ, a key of `_FIXES`."""
        if self.listed == self.decoded:
            return None
        if self.listed == self.decoded[::-1]:
            return 'swapped' if self.orientation < 5 else _of_exif(self)
        across, down = (new / old for new, old in zip(self.decoded, self.listed, strict=True))
        return 'scaled' if abs(across / down - 1) < _SAME_SHAPE else 'other'

    def __str__(self) -> str:
        decoded, listed = ('x'.join(map(str, size)) for size in (self.decoded, self.listed))
        return f'{self.path} is {decoded}, not {listed}'


def _of_exif(sizes: Sizes) -> str:
    with Image.open(sizes.path) as image:
        return 'upright' if image.size == sizes.decoded else 'turned'


def _ask(loaded: dict[str, Any]) -> Sizes | None:
    """The sizes of an entry of a dataset that lists them."""
    image, path = loaded.get('img'), loaded.get('img_path')
    listed = loaded.get('width'), loaded.get('height')
    known = all(isinstance(side, (int, float)) and side > 0 for side in listed)
    if not known or not isinstance(path, str) or not hasattr(image, 'shape'):
        return None
    return Sizes(path, listed, image.shape[1::-1], _orientation(path))


def _orientation(path: str) -> int:
    try:
        with Image.open(path) as image:
            return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # not on this disk, or of a format that Pillow does not read
        return 1


def _findings(dataset: Any, answers: Sequence[Any], place: str) -> Iterator[Finding]:
    known = [each for each in answers if each is not None]
    total = counted(len(known), 'image') + ' looked at' * (len(known) < len(dataset))
    differ = [(each.difference, each) for each in known]
    for kind, fix in _FIXES.items():
        found = [each for other, each in differ if other == kind]
        if found:
            yield error(
                f'{place}: {len(found)} of {total} {_verb(found, "has", "have")} another size than '
                f'{getattr(dataset, "ann_file", "")} lists ({_named(found)}), {fix}'
            )
    tagged = [each for kind, each in differ if kind is None and each.orientation in range(2, 9)]
    # Where width and height change places, their sizes show that the file lists turned images
    sure = any(each.orientation > 4 and len(set(each.decoded)) == 2 for each in tagged)
    if tagged and not sure and _turns(dataset):
        yield warning(
            f'{place}: {len(tagged)} of {total} {_verb(tagged, "has", "have")} an EXIF orientation '
            f'({", ".join(each.path for each in tagged[:_NAMED])}), which turns them when they '
            f'are decoded and keeps their size: see that the listed objects are turned too, or '
            f'remove the tag'
        )


def _turns(dataset: Any) -> bool:
    """Whether the loading transforms heed an EXIF orientation."""
    kinds = [str(getattr(each, 'color_type', '')) for each in dataset.pipeline.transforms]
    return not any(kind.endswith('ignore_orientation') or kind == 'unchanged' for kind in kinds)


def _verb(items: Sequence[Any], one: str, several: str) -> str:
    return one if len(items) == 1 else several


def _named(items: Sequence[Any]) -> str:
    return '; '.join(map(str, items[:_NAMED])) + ('; ...' if len(items) > _NAMED else '')


SIZES = Look(_ask, _findings)
