"""Stand-in for the few names that mmdet imports from `panopticapi`.

`panopticapi` (github.com/cocodataset/panopticapi) is not on the package index. mmdet takes its
conversion between ids and colours and its `PQStat` from there, and keeps the matching of segments
itself. Panoptic quality: Kirillov et al., Panoptic Segmentation, CVPR 2019.
"""

import dataclasses
import importlib.machinery
import importlib.util
import logging
import math
import sys
import types
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ['OFFSET', 'VOID', 'PQStat', 'PQStatCat', 'id2rgb', 'install', 'rgb2id']

_LOGGER = logging.getLogger(__name__)
_PACKAGE = 'panopticapi'
_MMDET_USERS = (
    'mmdet.evaluation.functional.panoptic_utils',
    'mmdet.evaluation.metrics.coco_panoptic_metric',
    'mmdet.apis.det_inferencer',
)

OFFSET = 256**3  # one more than the largest id that a colour can hold
VOID = 0  # the id of unlabelled pixels
_STAND_IN_LINE = 'panopticapi: not installed; vit_backbones serves the names that mmdet uses.'


def rgb2id(color: np.ndarray | Sequence[int]) -> np.ndarray | int:
    """Ids `R + 256 * G + 256**2 * B`, (H, W) int32, of an RGB image (H, W, 3) or of one colour."""
    ids = np.asarray(color, dtype=np.int32) @ np.array([1, 256, 256**2], dtype=np.int32)
    return ids if ids.ndim else int(ids)


def id2rgb(id_map: np.ndarray | int) -> np.ndarray | list[int]:
    """Colours (H, W, 3) uint8 RGB of segment ids (H, W), or of one as a list of three ints."""
    ids = np.asarray(id_map, dtype=np.int64)
    outside = ids[(ids < 0) | (ids >= OFFSET)]
    if outside.size:
        raise ValueError(f'segment ids must be in [0, {OFFSET}) to fit a colour, got {outside[0]}.')
    rgb = np.stack([ids % 256, ids // 256 % 256, ids // 256**2], axis=-1).astype(np.uint8)
    return rgb if ids.ndim else rgb.tolist()


@dataclasses.dataclass
class PQStatCat:
    """Counts of one category."""

    iou: float = 0.0  # sum over the matched pairs of segments
    tp: int = 0  # matched pairs
    fp: int = 0  # predicted segments without a match
    fn: int = 0  # true segments without a match

    def __iadd__(self, other: 'PQStatCat') -> 'PQStatCat':
        self.iou += other.iou
        self.tp += other.tp
        self.fp += other.fp
        self.fn += other.fn
        return self


class PQStat:
    """Counts of all categories; `stat[category_id]` starts at zero."""

    def __init__(self) -> None:
        self.pq_per_cat: dict[int, PQStatCat] = defaultdict(PQStatCat)

    def __getitem__(self, category_id: int) -> PQStatCat:
        return self.pq_per_cat[category_id]

    def __iadd__(self, other: 'PQStat') -> 'PQStat':
        for category_id, counts in other.pq_per_cat.items():
            self.pq_per_cat[category_id] += counts
        return self

    def pq_average(
        self, categories: Mapping[int, Mapping[str, Any]], isthing: bool | None
    ) -> tuple[dict[str, float], dict[int, dict[str, float]]]:
        """Panoptic, segmentation and recognition quality.

        `pq = iou / (tp + (fp + fn) / 2)` is `sq = iou / tp` times `rq = tp / (tp + (fp + fn) / 2)`.

        Args:
            categories: Category id to a mapping whose `'isthing'` is 0 or 1.
            isthing: True for only things, False for only stuff, None for both.

        Returns:
            Means over the categories that occur in the truth or in the predictions, as `pq`, `sq`
            and `rq` in [0, 1] and their number `n` (the means of no category are NaN); and
            `pq`, `sq`, `rq` by category id, 0 for those that do not occur.
        """
        chosen = [
            index
            for index, each in categories.items()
            if isthing is None or (each['isthing'] == 1) == isthing
        ]
        per_class = {index: _qualities(self[index]) for index in chosen}
        found = [per_class[i] for i in chosen if self[i] != PQStatCat()]
        means = {
            key: sum(result[key] for result in found) / len(found) if found else math.nan
            for key in ('pq', 'sq', 'rq')
        }
        return {**means, 'n': len(found)}, per_class


def _qualities(counts: PQStatCat) -> dict[str, float]:
    if not counts.tp:
        return {'pq': 0.0, 'sq': 0.0, 'rq': 0.0}
    size = counts.tp + (counts.fp + counts.fn) / 2
    return {'pq': counts.iou / size, 'sq': counts.iou / counts.tp, 'rq': counts.tp / size}


def install() -> str:
    """Make `panopticapi`, `.evaluation` and `.utils` importable where the package is missing.

    A real `panopticapi` is left untouched. Calling it again changes nothing. Modules of mmdet that
    were imported earlier hold `None` in place of these names; they get them too. Returns one line
    on the outcome, which is logged too, at level INFO.
    """
    if getattr(sys.modules.get(f'{_PACKAGE}.evaluation'), 'PQStat', None) is PQStat:
        return _STAND_IN_LINE
    if importlib.util.find_spec(_PACKAGE) is None:
        _put_stand_in()
        line = _STAND_IN_LINE
    else:
        line = 'panopticapi: the installed package, left untouched.'
    _LOGGER.info(line)
    return line


def _put_stand_in() -> None:
    evaluation = {'OFFSET': OFFSET, 'VOID': VOID, 'PQStat': PQStat, 'PQStatCat': PQStatCat}
    utils = {'id2rgb': id2rgb, 'rgb2id': rgb2id}
    submodules = {
        'evaluation': _put_module(f'{_PACKAGE}.evaluation', evaluation),
        'utils': _put_module(f'{_PACKAGE}.utils', utils),
    }
    package = _put_module(_PACKAGE, {'__path__': [], **submodules})
    names = {_PACKAGE: package, **evaluation, **utils}
    for user in filter(None, map(sys.modules.get, _MMDET_USERS)):
        unset = [name for name in names if getattr(user, name, user) is None]
        vars(user).update({name: names[name] for name in unset})


def _put_module(name: str, members: Mapping[str, Any]) -> types.ModuleType:
    """Put a module with these members into `sys.modules`."""
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, loader=None, origin=__name__)
    vars(module).update(members)
    sys.modules[name] = module
    return module
