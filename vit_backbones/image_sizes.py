"""How backbones that mask padding learn where the images of a batch end.

Detectors and segmenters hand a backbone the padded batch alone, so the data preprocessor, which
padded it, tells every backbone that follows.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakSet

from torch import Tensor

if TYPE_CHECKING:
    from vit_backbones.backbone import ViTFeatBackbone

FOLLOWERS: 'WeakSet[ViTFeatBackbone]' = WeakSet()


def announce(inputs: Sequence[Tensor] | Tensor) -> None:
    """Tell the sizes of images.

    Args:
        inputs: (C, H, W) each, as they are before a data preprocessor pads them; a batch (B, C, H,
            W) has no padding.
    """
    sizes = None if isinstance(inputs, Tensor) else [tuple(image.shape[-2:]) for image in inputs]
    for backbone in FOLLOWERS:
        backbone.set_image_sizes(sizes)
