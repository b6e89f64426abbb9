"""What `tools/train.py` and `tools/test.py` do: set-up, run, one closing line, exit code."""

import logging
import os
import sys
import time
import traceback
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log

from vit_backbones.checks import preflight
from vit_backbones.checks.data import image_findings
from vit_backbones.checks.findings import Finding, error
from vit_backbones.checks.recipe import config_findings, model_findings
from vit_backbones.config.datasets import missing_data
from vit_backbones.config.explain import describe
from vit_backbones.config.facts import Facts
from vit_backbones.config.loading import load_config
from vit_backbones.metrics import headline, metric_line, metric_text
from vit_backbones.own_data import use_own_data
from vit_backbones.shapes import write_shapes
from vit_backbones.terminal import quiet_warnings
from vit_backbones.training.curves_hook import validations
from vit_backbones.training.runner import AnyRunner, build_runner
from vit_backbones.training.skip_unreadable_hook import UnreadableDataError

_HOOKS = {
    'curves': 'CurvesHook',
    'pictures': 'PredictionPicturesHook',
    'record': 'RecordHook',
    'skip_unreadable': 'SkipUnreadableImagesHook',
}


def train(
    config: str,
    *,
    dataset: str | None = None,
    val_dataset: str | None = None,
    images: str | None = None,
    work_dir: str | None = None,
    amp: bool = False,
    resume: str | None = None,
    seed: int | None = None,
    deterministic: bool = False,
    options: Sequence[str] = (),
    launcher: str = 'none',
    debug: bool = False,
    command: str = '',
) -> int:
    """Train as `tools/train.py` does.

    Args:
        config: Path of an mmdet or mmseg config.
        dataset: One's own data, as `use_own_data` takes them, in place of the config's.
        val_dataset: Those to validate on.
        images: Folder of their images, where it is not found.
        work_dir: Folder for results. Defaults to the config's own, else `work_dirs/<config name>`.
        amp: Mixed precision: bfloat16 where the GPU has it, else float16.
        resume: `'auto'` for the last whole checkpoint of the work dir, or a checkpoint file.
        seed: Replaces the config's.
        deterministic: Only deterministic algorithms.
        options: `key=value` changes of the config.
        launcher: `'none'`, `'pytorch'`, `'slurm'` or `'mpi'`.
        debug: Print the traceback of set-up errors too.
        command: What resumes the training, for the message after Ctrl-C.

    Returns:
        Exit code: 0, 2 for what is wrong from outside, 130 after Ctrl-C.
    """

    def set_up() -> AnyRunner:
        cfg = _load(config, options, work_dir=work_dir, launcher=launcher)
        _replace_data(cfg, dataset, val_dataset, images)
        cfg.randomness = dict(seed=None) | (cfg.get('randomness') or {})
        if seed is not None:
            cfg.randomness.seed = seed
        if deterministic:
            cfg.randomness.deterministic = True
        if amp:
            _use_amp(cfg)
        if resume is not None:
            _resume(cfg, resume)
        _add_hooks(cfg, _HOOKS)
        return prepare(cfg, ('train', 'val'))

    def run(runner: AnyRunner) -> str:
        runner.train()
        return final_result(runner)

    def interrupted(runner: AnyRunner) -> str:
        last = find_last_checkpoint(runner.work_dir)
        if last is None:
            return 'interrupted before the first checkpoint; start again with the same command'
        return f'interrupted; the last checkpoint is {_short(last)}, continue with: {command}'

    return _execute(set_up, run, interrupted, debug=debug)


def evaluate(
    config: str,
    checkpoint: str,
    *,
    work_dir: str | None = None,
    options: Sequence[str] = (),
    launcher: str = 'none',
    show_dir: str | None = None,
    debug: bool = False,
) -> int:
    """Evaluate a checkpoint as `tools/test.py` does.

    Args:
        config: Path of an mmdet or mmseg config.
        checkpoint: File that `train` wrote.
        work_dir: As in `train`.
        options: As in `train`.
        launcher: As in `train`.
        show_dir: Folder for pictures of all predictions.
        debug: As in `train`.

    Returns:
        Exit code, as of `train`.
    """

    def set_up() -> AnyRunner:
        cfg = _load(config, options, work_dir=work_dir, launcher=launcher)
        cfg.load_from, cfg.resume = checkpoint, False
        if show_dir is not None:
            os.makedirs(show_dir, exist_ok=True)
            pictures = dict(type=_HOOKS['pictures'], test_dir=os.path.abspath(show_dir))
            cfg.default_hooks = (cfg.get('default_hooks') or {}) | dict(pictures=pictures)
        _add_hooks(cfg, ('record',))
        return prepare(cfg, ('test',))

    def run(runner: AnyRunner) -> str:
        metrics = runner.test()
        return metric_line(headline(metrics), metrics) if metrics else 'no metric'

    return _execute(set_up, run, lambda runner: 'interrupted', debug=debug)


def _execute(
    set_up: Callable[[], AnyRunner],
    run: Callable[[AnyRunner], str],
    interrupted: Callable[[AnyRunner], str],
    *,
    debug: bool,
) -> int:
    """Set up and run; real crashes of a running training keep their traceback."""
    start, runner = time.monotonic(), None
    with quiet_warnings():
        try:
            runner = set_up()
            result = run(runner)
            # Left to the interpreter's end, gloo's threads would sometimes abort the process
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
        except KeyboardInterrupt:
            return _tell(interrupted(runner) if runner else 'interrupted before the start', 130)
        except UnreadableDataError as error:
            # From a worker process the text is a traceback that ends with the message.
            return _tell(f'error: {str(error).strip().splitlines()[-1]}', 2)
        except Exception as error:
            if _was_interrupted(error):
                return _tell(interrupted(runner) if runner else 'interrupted before the start', 130)
            if runner is not None and runner.is_running:
                raise
            if debug:
                traceback.print_exc()
            return _tell(f'error: {describe(error)}', 2)
    if runner.rank == 0:
        print(f'done: {result} · {_duration(time.monotonic() - start)} · {_short(runner.work_dir)}')
    return 0


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an exception: a bare `except` on the way may have replaced it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _is_first() -> bool:
    """Whether this is the process that talks."""
    return os.environ.get('RANK', '0') == '0'


def _say(line: str) -> None:
    if _is_first():
        print(line)


def _tell(line: str, code: int) -> int:
    if _is_first():
        print(line, file=sys.stderr)
    return code


def _load(path: str, options: Sequence[str], *, work_dir: str | None, launcher: str) -> Config:
    preflight.check_environment()
    cfg = load_config(path, options)
    cfg.work_dir = work_dir or cfg.get('work_dir') or os.path.join('work_dirs', Path(path).stem)
    cfg.launcher = launcher
    return cfg


def _replace_data(
    cfg: Config, dataset: str | None, val_dataset: str | None, images: str | None
) -> None:
    if dataset is None:
        return
    folder = os.path.join(cfg.work_dir, 'dataset')
    _say(use_own_data(cfg, dataset, val_data=val_dataset, images=images, folder=folder))


def prepare(cfg: Config, splits: Sequence[str]) -> AnyRunner:
    """Check, build the runner, and draw the built-in data if the config wants it.

    Args:
        cfg: The merged config, with its `work_dir`.
        splits: Which dataloaders and evaluators will be used, of `'train'`, `'val'` and `'test'`.

    Raises:
        ValueError: For the first error that `vit_backbones.checks` finds.
    """
    facts = Facts.of(cfg, splits)
    findings = list(config_findings(facts))
    _heed(each for each in findings if each.level == 'error')
    runner = build_runner(cfg)
    if facts.builtin_data:  # only now that the model is known to be in order
        write_shapes(**facts.builtin_data)
        _heed(map(error, missing_data(facts)))
    if facts.load_from and (cfg.get('resume') or 'test' in splits):
        _heed(preflight.fit_findings(runner.model, facts.load_from))
    _heed([*findings, *model_findings(facts, runner.model)])
    split = splits[-1]
    if runner.rank == 0 and cfg.get(f'{split}_dataloader') is not None:
        _heed(image_findings(getattr(runner, f'{split}_loop').dataloader.dataset, split))
    return runner


def _heed(findings: Iterable[Finding]) -> None:
    """Stop at the first error; log the warnings before it."""
    for each in findings:
        if each.level == 'error':
            raise ValueError(each.text)
        print_log(each.text, logger='current', level=logging.WARNING)


def _use_amp(cfg: Config) -> None:
    if not torch.cuda.is_available():
        raise ValueError('--amp needs a CUDA GPU, and PyTorch finds none here; train without it')
    wrapper = cfg.optim_wrapper
    if wrapper.get('type', 'OptimWrapper') not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise ValueError(f'--amp replaces OptimWrapper only, the config has {wrapper.type!r}')
    wrapper.type = 'AmpOptimWrapper'
    wrapper.setdefault('dtype', 'bfloat16' if torch.cuda.is_bf16_supported() else 'float16')
    # bfloat16 has float32's range, so only float16 needs its loss scaled
    wrapper.setdefault('loss_scale', 'dynamic' if wrapper.dtype == 'float16' else 1.0)


def _resume(cfg: Config, checkpoint: str) -> None:
    if checkpoint == 'auto':
        last = find_last_checkpoint(cfg.work_dir)
        if last is None:
            _say(f'nothing to resume in {_short(cfg.work_dir)}: training starts anew')
            return
        checkpoint = str(last)
        _say(f'resuming from {_short(checkpoint)}')
    cfg.load_from, cfg.resume = checkpoint, True


def find_last_checkpoint(work_dir: str | Path) -> Path | None:
    """The newest whole checkpoint of a work dir; one that a killed run left half is passed over.

    Args:
        work_dir: Where a runner saved its checkpoints.

    Returns:
        Its path, or `None` without any. The best ones, which lack the optimizer, do not count.
    """
    files = [path for path in Path(work_dir).glob('*.pth') if not path.name.startswith('best_')]
    # PyTorch writes a zip file, whose directory comes last.
    whole = [path for path in files if zipfile.is_zipfile(path)]
    return max(whole, key=lambda path: path.stat().st_mtime_ns, default=None)


def _add_hooks(cfg: Config, names: Iterable[str]) -> None:
    """Add our hooks of these names where a config has not got them; `None` leaves one out."""
    cfg.default_hooks = cfg.get('default_hooks') or {}  # `setdefault` would give a copy
    hooks = cfg.default_hooks
    present = {hook.get('type') for hook in [*hooks.values(), *cfg.get('custom_hooks', [])] if hook}
    for name, kind in _HOOKS.items():
        if name in hooks and hooks[name] is None:
            del hooks[name]
        elif name in names and kind not in present:
            hooks[name] = dict(type=kind) | (hooks.get(name) or {})


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f'{hours} h {minutes} min'
    return f'{minutes} min {seconds} s' if minutes else f'{seconds} s'


def _short(path: str | Path) -> str:
    """Relative to the current folder where the path lies in it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith('..') else relative


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
