"""The one metric to tell of a validation, and how it is written."""

from typing import Any

from vit_backbones.runner import AnyRunner
from vit_backbones.training.hooks import validations

HEADLINES = ('PQ', 'segm_mAP', 'mIoU', 'bbox_mAP')
# mmseg gives these in percent, and mmdet those of panoptic maps
_PERCENT = {'aAcc', 'mAcc', 'mIoU', 'mDice', 'mFscore', 'mPrecision', 'mRecall'}
_PERCENT |= {name + part for name in ('PQ', 'SQ', 'RQ') for part in ('', '_th', '_st')}


def headline(metrics: dict[str, Any], wanted: Any = None) -> str:
    """The name of the one metric to tell.

    Args:
        metrics: At least one, by name.
        wanted: Name that is taken where it is among them, as `save_best` of a config.
    """
    if wanted in metrics:
        return wanted
    short = {name.split('/')[-1]: name for name in metrics}
    return next((short[each] for each in HEADLINES if each in short), next(iter(metrics)))


def metric_text(name: str, value: float) -> str:
    """A metric's value for reading, e.g. `'49.0 %'` or `'0.329'`."""
    return f'{value:.1f} %' if name.split('/')[-1] in _PERCENT else f'{value:.3f}'


def final_result(runner: AnyRunner) -> str:
    """The last value of the main metric, and the best one if that was another."""
    entries = validations(runner) or _last_validation(runner)
    if not entries:
        return 'trained without validation'
    entries = [entry for entry in entries if entry['metrics']]
    if not entries:
        return 'no metric'  # detectors that detect nothing have none
    saving = (runner.cfg.get('default_hooks') or {}).get('checkpoint') or {}
    last = entries[-1]['metrics']
    name = headline(last, saving.get('save_best'))
    pick = min if saving.get('rule') == 'less' else max
    entries = [entry for entry in entries if name in entry['metrics']]
    best = pick(entries, key=lambda entry: entry['metrics'][name])
    result = metric_line(name, last)
    if best['metrics'][name] == last[name]:
        return result
    unit = 'epoch' if runner.max_epochs > 1 else 'iter'
    when = f'{unit.replace("iter", "iteration")} {best[unit]}'
    return f'{result} (best {metric_text(name, best["metrics"][name])} at {when})'


def _last_validation(runner: AnyRunner) -> list[dict[str, Any]]:
    """What MMEngine itself remembers, for configs that leave `CurvesHook` out."""
    metrics = {
        name.removeprefix('val/'): buffer.current()
        for name, buffer in runner.message_hub.log_scalars.items()
        if name.startswith('val/') and not name.endswith('time')
    }
    return [{'metrics': metrics}] if metrics else []


def metric_line(name: str, metrics: dict[str, Any]) -> str:
    """A metric with its name, e.g. `'mIoU 49.0 %'`."""
    return f'{name.split("/")[-1]} {metric_text(name, metrics[name])}'
