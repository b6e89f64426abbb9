"""Announce to backbones that mask padding where the images of a batch end.

Detectors and segmenters hand a backbone only the padded batch, so the data preprocessor, which
padded it, reports the sizes to every backbone that follows.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from weakref import WeakSet

from torch import Tensor

from vit_backbones.arguments import pair, sides
from vit_backbones.position import Grid

_FOLLOWERS: 'WeakSet[ImageSizes]' = WeakSet()


class ImageSizes:
    """Where the images of the next batches end; set by data preprocessors if it `follows` them."""

    def __init__(self, *, follows: bool) -> None:
        self.sizes: list[Grid] | None = None  # (H, W) of each image, `None` for whole images
        self.batch_shape: Grid | None = None  # (H, W) of the batch, `None` for any
        self._follows = follows
        self.__setstate__({})

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a copy, which follows as the original does."""
        self.__dict__.update(state)
        if self._follows:
            _FOLLOWERS.add(self)

    def set(self, sizes: Sequence[Sequence[int]] | None, batch_shape: Grid | None = None) -> None:
        """Take up the sizes of the next batches; an error if one is no (H, W) of at least 1."""
        if sizes is not None and (isinstance(sizes, str) or not isinstance(sizes, Iterable)):
            raise TypeError(f'sizes must be one (H, W) an image, or None, got {sizes!r}')
        self.sizes = None if sizes is None else [sides('size', size) for size in sizes]
        self.batch_shape = pair('batch_shape', batch_shape)

    def of(self, images: Tensor) -> list[Grid] | None:
        """The sizes set for a batch (B, C, H, W); `None` for whole images."""
        sizes, shape = self.sizes, tuple(images.shape[-2:])
        if sizes is None:
            return None
        too_large = any(h > shape[0] or w > shape[1] for h, w in sizes)
        other = self.batch_shape not in (None, shape)
        if len(sizes) != len(images) or too_large or other:
            raise ValueError(
                f'image sizes {sizes} were set for another batch than {tuple(images.shape)}: call '
                f'set_image_sizes with one (H, W) an image, or with None; windows that slide over '
                f'padded images cannot be masked'
            )
        return sizes


class AnnouncesImageSizes:
    """For a data preprocessor of mmdet or mmseg: its base class comes behind this one."""

    announces_image_sizes = True

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Make the batch, and report to every backbone that follows where its images end.

        Sizes are the `img_shape` of each sample, after transforms; without samples, those of the
        images before padding.
        """
        sizes = [tuple(image.shape[-2:]) for image in data['inputs']]
        batch = super().forward(data, training)
        samples = batch.get('data_samples') or []
        if samples and all('img_shape' in sample for sample in samples):
            sizes = [tuple(sample.img_shape[:2]) for sample in samples]
        announce(sizes, batch['inputs'])
        return batch


def announce(sizes: Sequence[Grid], batch: Tensor) -> None:
    """Report (H, W) of each image of a batch (B, C, H, W), padded right and below."""
    shape = tuple(batch.shape[-2:])
    padded = any(tuple(size) != shape for size in sizes)
    for follower in _FOLLOWERS:
        follower.set(sizes if padded else None, shape if padded else None)
