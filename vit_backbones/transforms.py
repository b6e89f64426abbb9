"""Transforms of EoMT's training that mmdet and mmseg lack.

Source: https://github.com/tue-mps/eomt (MIT), `datasets/transforms.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform, Compose
from mmengine.registry import TRANSFORMS

from vit_backbones.arguments import integer, pair

_VOID = 255


@TRANSFORMS.register_module()
class PadWithBlack(BaseTransform):
    """Pad images below and right with black, before they are normalised.

    A data preprocessor pads behind the normalisation, with the mean colour. `img_shape` stays that
    of the image, so that mmdet takes the padding off predictions. Masks get zeros, and maps of
    classes 255.

    Args:
        size: An int or (height, width) that a padded image has at least.
    """

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = pair('size', size)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Pad image, masks and map of classes."""
        results['img_shape'] = sides = results['img'].shape[:2]
        shape = tuple(map(max, self.size, sides))
        results['img'] = mmcv.impad(results['img'], shape=shape, pad_val=0)
        results['pad_shape'] = results['img'].shape
        if results.get('gt_masks') is not None:
            results['gt_masks'] = results['gt_masks'].pad(shape, pad_val=0)
        if results.get('gt_seg_map') is not None:
            results['gt_seg_map'] = mmcv.impad(results['gt_seg_map'], shape=shape, pad_val=_VOID)
        return results


@TRANSFORMS.register_module()
class UntilObjects(BaseTransform):
    """Apply random transforms, as a crop, anew until their result shows an object.

    An object is a mask with a pixel, or a class other than 255. The last result stands if none has
    one, and what gives `None` is tried anew.

    Args:
        transforms: Configs of the transforms.
        tries: At most.
    """

    def __init__(self, transforms: Sequence[Mapping[str, Any]], tries: int = 20) -> None:
        self.transforms = Compose(transforms)
        self.tries = integer('tries', tries, 1)

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """The first result with an object, or the last one."""
        found = None
        for _ in range(self.tries):
            found = self.transforms(_copied(results))
            if found is not None and _has_objects(found):
                break
        return found


def _copied(results: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of what transforms change in place: boxes, flags and lists."""
    return {
        key: value.clone()
        if hasattr(value, 'clone')
        else list(value)
        if isinstance(value, list)
        else value
        for key, value in results.items()
    }


def _has_objects(results: Mapping[str, Any]) -> bool:
    classes = results.get('gt_seg_map')
    if classes is not None and (classes != _VOID).any():
        return True
    masks = results.get('gt_masks')
    if masks is None or not len(masks):
        return False
    ignored = results.get('gt_ignore_flags', np.zeros(len(masks), bool))
    return bool((masks.areas[~np.asarray(ignored, bool)] > 0).any())
