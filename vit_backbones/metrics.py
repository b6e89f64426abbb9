"""The main metric of a validation, and how to write it."""

from typing import Any

STANDARD_ERROR = '_se'  # behind the name of a metric
HEADLINES = ('PQ', 'segm_mAP', 'mIoU', 'bbox_mAP')
# mmseg gives these in percent, and mmdet those of panoptic maps
_PERCENT = {'aAcc', 'mAcc', 'mIoU', 'mDice', 'mFscore', 'mPrecision', 'mRecall'}
_PERCENT |= {name + part for name in ('PQ', 'SQ', 'RQ') for part in ('', '_th', '_st')}


def headline(metrics: dict[str, Any], wanted: Any = None) -> str:
    """The main one of some metrics: `wanted`, as a config's `save_best`, if among them."""
    for name in wanted if isinstance(wanted, (list, tuple)) else [wanted]:
        if name in metrics:
            return name
    short = {name.split('/')[-1]: name for name in metrics}
    return next((short[each] for each in HEADLINES if each in short), next(iter(metrics)))


def in_points(name: str, value: float) -> float:
    """A metric's value on 0-100."""
    return value if name.split('/')[-1] in _PERCENT else 100 * value


def metric_text(name: str, value: float) -> str:
    """A metric's value for reading, e.g. `'49.0 %'` or `'0.329'`."""
    return f'{value:.1f} %' if name.split('/')[-1] in _PERCENT else f'{value:.3f}'


def metric_line(name: str, metrics: dict[str, Any]) -> str:
    """A metric with its name and its standard error, if known, e.g. `'mIoU 49.0 %'`."""
    text = f'{name.split("/")[-1]} {metric_text(name, metrics[name])}'
    error = metrics.get(name + STANDARD_ERROR)
    return text if error is None else f'{text}, standard error {metric_text(name, error)}'
