"""Announce to backbones that mask padding where the images of a batch end.

Detectors and segmenters hand a backbone only the padded batch, so the data preprocessor, which
padded it, announces the sizes to every backbone that follows.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from torch import Tensor

from vit_backbones.position import Grid

if TYPE_CHECKING:
    from vit_backbones.backbone import ViTFeatBackbone

FOLLOWERS: 'WeakSet[ViTFeatBackbone]' = WeakSet()


class AnnouncesImageSizes:
    """For a data preprocessor of mmdet or mmseg: its base class comes behind this one."""

    announces_image_sizes = True

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Make the batch, and announce where its images end.

        Sizes are `img_shape` of each sample, as of now; without samples, those of the images.
        """
        sizes = [tuple(image.shape[-2:]) for image in data['inputs']]
        batch = super().forward(data, training)
        samples = batch.get('data_samples') or []
        if samples and all('img_shape' in sample for sample in samples):
            sizes = [tuple(sample.img_shape[:2]) for sample in samples]
        announce(sizes, batch['inputs'])
        return batch


def announce(sizes: Sequence[Grid], batch: Tensor) -> None:
    """Announce (H, W) of each image of a batch (B, C, H, W), padded right and below."""
    shape = tuple(batch.shape[-2:])
    padded = any(tuple(size) != shape for size in sizes)
    for backbone in FOLLOWERS:
        backbone.set_image_sizes(sizes if padded else None, shape if padded else None)
