"""The result of a training or test, and the line that closes it."""

from typing import Any, NamedTuple

from vit_backbones.files import short_path
from vit_backbones.metrics import headline, metric_line, metric_text
from vit_backbones.training.curves_hook import validations
from vit_backbones.training.runner import AnyRunner

Result = tuple[str, dict[str, Any]]  # the main metric in a few words, and all values


class Finished(NamedTuple):
    """The end of a training or test: the main metric in a few words, all values, wall time."""

    result: str
    metrics: dict[str, Any]
    seconds: float
    work_dir: str

    def __str__(self) -> str:
        """Result, time and folder in one line."""
        return f'{self.result} · {_duration(self.seconds)} · {short_path(self.work_dir)}'


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f'{hours} h {minutes} min'
    return f'{minutes} min {seconds} s' if minutes else f'{seconds} s'


def training_result(runner: AnyRunner) -> Result:
    """The last value of the main metric, and the best one if that was another; or a report."""
    if report := getattr(runner.train_loop, 'report', None):
        return report.line(), {}
    every = validations(runner) or _last_validation(runner)
    entries = [entry for entry in every if entry['metrics']]
    if not entries:  # detectors that detect nothing have no metric
        return 'no metric' if every else 'trained without validation', {}
    last = entries[-1]['metrics']
    return _last_and_best(runner, entries, last), last


def test_result(metrics: dict[str, Any]) -> Result:
    """The main metric of a test."""
    return metric_line(headline(metrics), metrics) if metrics else 'no metric', metrics


def _last_and_best(runner: AnyRunner, entries: list[dict[str, Any]], last: dict[str, Any]) -> str:
    saving = (runner.cfg.get('default_hooks') or {}).get('checkpoint') or {}
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
    """The metrics in MMEngine's own log, for configs without `CurvesHook`."""
    metrics = {
        name.removeprefix('val/'): buffer.current()
        for name, buffer in runner.message_hub.log_scalars.items()
        if name.startswith('val/') and not name.endswith('time')
    }
    return [{'metrics': metrics}] if metrics else []
