"""What is wrong with one entry of a dataset once it is loaded, as each training asks."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_backbones.checks.label_maps import count_labels, file_findings

_OTHER_SIZE = 'it is {} pixels and listed as {}, so that its objects lie elsewhere'


def fault_of(dataset: Any, loaded: Mapping[str, Any]) -> str | None:
    """Why an entry must not be learned, after one of its loading transforms; `None` if it may.

    Images of mmdet must have the size that their file lists. Label maps of mmseg must have that of
    their image, and labels of the classes only.
    """
    return _listed_size(loaded) or _labels(dataset, loaded)


def _listed_size(loaded: Mapping[str, Any]) -> str | None:
    listed = [loaded.get(key) for key in ('width', 'height')]
    image, decoded = loaded.get('img'), loaded.get('ori_shape')
    if not isinstance(image, np.ndarray) or decoded is None or image.shape[:2] != tuple(decoded):
        return None
    if not all(isinstance(side, int | float) and side > 0 for side in listed):
        return None
    sizes = ('x'.join(map(str, each)) for each in (image.shape[1::-1], listed))
    return None if list(image.shape[1::-1]) == listed else _OTHER_SIZE.format(*sizes)


def _labels(dataset: Any, loaded: Mapping[str, Any]) -> str | None:
    if 'gt_seg_map' not in loaded or loaded.get('img_shape') != loaded.get('ori_shape'):
        return None
    found = [e for e in file_findings(dataset, [count_labels(loaded)], '') if e.level == 'error']
    return found[0].text.removeprefix(': ') if found else None
