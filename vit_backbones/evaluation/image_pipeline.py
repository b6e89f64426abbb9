"""Images of files and of memory, and tiles of them, through the transforms a config tests with."""

from typing import Any

import numpy as np
from mmcv.transforms import Compose
from mmengine.config import Config

from vit_backbones.config.datasets import pipeline_of
from vit_backbones.config.explain import describe
from vit_backbones.config.facts import type_name
from vit_backbones.cutouts import Place
from vit_backbones.images import HeldItem, Item, UnreadableImageError
from vit_backbones.loaders import loads_images
from vit_backbones.position import Grid

_FLIPS = [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]
# What OpenCV and Pillow write of a size of 0
_EMPTY = ('inv_scale_x > 0', 'inv_scale_y > 0', 'dsize.empty', 'height and width must be > 0')
_META = ('ori_shape', 'flip', 'flip_direction')
Results = dict[str, Any]  # what the transforms hand on to each other


class ImagePipeline:
    """The transforms that a config tests with, split where an image is loaded.

    Args:
        config: With a pipeline for tests.
        channels: That the model takes, `None` for any.
        flip: Give each image twice, the second time mirrored.
    """

    def __init__(self, config: Config, channels: int | None, *, flip: bool = False) -> None:
        steps = pipeline_for_images(config, flip=flip)
        others = (i for i, step in enumerate(steps) if not loads_images(type_name(step)))
        count = next(others, len(steps))
        self._load, self._rest = Compose(steps[:count]), Compose(steps[count:])
        self._channels = channels

    def load(self, item: Item, number: int = 0) -> Results:
        """The image as the loading transforms give it; that of memory as they would give it.

        Raises:
            UnreadableImageError: If they cannot load it.
        """
        known = dict(img_path=str(item.path), img_id=number)
        if isinstance(item, HeldItem):
            return known | self._held(item)
        return _run(self._load, known, item)

    def tensors(self, results: Results, item: Item) -> Results:
        """The model's input of a loaded image.

        Raises:
            UnreadableImageError: If a transform fails, or the model takes other channels.
        """
        data = _run(self._rest, results, item)
        given = shapes_of(data)[0][0]
        if self._channels not in (None, given):
            why = f'it has {given} channels, and the model takes {self._channels}'
            raise UnreadableImageError(f'{item.path}: {why}')
        return data

    def tile(self, results: Results, place: Place) -> Results:
        """A tile of a loaded image, as if it were an image of its own.

        A `ValueError` if nothing in the pipeline loads images on their own.
        """
        self._check_split()
        names = {name: results.get(name) for name in ('img_path', 'img_id')}
        return names | _with_size(np.ascontiguousarray(place.of(results['img'])))

    def _held(self, item: Item) -> Results:
        self._check_split()
        pixels = item.pixels[..., ::-1] if item.pixels.shape[-1] == 3 else item.pixels
        pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
        if any(getattr(step, 'to_float32', False) for step in self._load.transforms):
            pixels = pixels.astype(np.float32)
        return _with_size(np.ascontiguousarray(pixels))

    def _check_split(self) -> None:
        if not self._load.transforms:
            raise ValueError(
                "the config's test pipeline begins with no Load... transform, so it takes only "
                'whole files: give paths, without tiles'
            )


def pipeline_for_images(config: Config, *, flip: bool = False) -> list[dict[str, Any]]:
    """The transforms that a config tests with, except those that load annotations.

    With `flip` they give each image twice, the second time mirrored.
    """
    pipeline = pipeline_of(config, ('test', 'val'))
    steps = [dict(step) for step in pipeline if 'Annotations' not in str(step['type'])]
    if not flip:
        return steps
    names = [type_name(step) for step in steps]
    first = next(i for i, name in enumerate(names) if name.startswith(('Pad', 'Pack')))
    ends = [
        step | (dict(meta_keys=(*step['meta_keys'], *_META)) if 'meta_keys' in step else {})
        for step in steps[first:]
    ]
    flips = [dict(each) for each in _FLIPS]  # mmcv replaces them in place
    variants = [flips, [_copied], *([end] for end in ends)]
    steps[first:] = [dict(type='TestTimeAug', transforms=variants)]
    return steps


def shapes_of(data: Results) -> list[tuple[int, ...]]:
    """Shapes (C, H, W) of a model's input, several with flips."""
    inputs = data['inputs']
    return [tuple(each.shape) for each in (inputs if isinstance(inputs, list) else [inputs])]


def _copied(results: Results) -> Results:
    """Copy the image: PyTorch refuses a mirrored one of a single column, as NumPy keeps it."""
    return results | dict(img=np.array(results['img'], order='C'))


def _with_size(pixels: np.ndarray) -> Results:
    size = pixels.shape[:2]
    return dict(img=pixels, img_shape=size, ori_shape=size)


def _run(steps: Compose, results: Results, item: Item) -> Results:
    size = item.pixels.shape[:2] if 'img' not in results else results['img'].shape[:2]
    try:
        return steps(results)
    except Exception as error:  # each transform has its own
        raise UnreadableImageError(f'{item.path}: {_reason(error, size)}') from error


def _reason(error: Exception, size: Grid) -> str:
    """Why the pipeline cannot take an image, in plain words where a side would vanish."""
    text = describe(error)
    if not any(each in text for each in _EMPTY):
        return text
    return (
        f"it has {size[0]}x{size[1]} pixels, of which the config's Resize leaves no row or column"
    )
