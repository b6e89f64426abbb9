"""Train and test a config, from the checks before the start to the result."""

import functools
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence

import torch
from mmengine.config import Config
from mmengine.logging import print_log

from vit_backbones.arguments import flag, integer
from vit_backbones.checks import preflight
from vit_backbones.checks.channels import channel_findings
from vit_backbones.checks.coco_files import built, evaluator_findings, kept_findings
from vit_backbones.checks.data import few_findings, image_findings, start_findings
from vit_backbones.checks.findings import Finding, beside_own_data, error, warning
from vit_backbones.checks.recipe import config_findings, model_findings
from vit_backbones.checks.resuming import resume_findings
from vit_backbones.config.datasets import missing_data
from vit_backbones.config.facts import Facts
from vit_backbones.config.loading import config_file, load_config
from vit_backbones.files import check_writable
from vit_backbones.own_data import Used, use_own_data
from vit_backbones.shapes import write_shapes
from vit_backbones.terminal import quiet_warnings
from vit_backbones.training.added_hooks import ADDED, add_hooks
from vit_backbones.training.amp import use_amp
from vit_backbones.training.changes import Changes
from vit_backbones.training.compiling import compile_parts
from vit_backbones.training.ending import Ending
from vit_backbones.training.last_checkpoint import resume_from
from vit_backbones.training.machine import copy_without_waiting, fit_to_machine
from vit_backbones.training.outcome import Finished, Result, test_result, training_result
from vit_backbones.training.replay_loop import replaying
from vit_backbones.training.runner import AnyRunner, QuietFlexibleRunner, build_runner
from vit_backbones.training.started_files import DATASET, StartedFiles
from vit_backbones.training.stopping import Stop

Say = Callable[[str], None]
_log: Say = functools.partial(print_log, logger='current')


def train(
    config: str,
    *,
    dataset: str | None = None,
    val_dataset: str | None = None,
    images: str | None = None,
    work_dir: str | None = None,
    amp: bool = False,
    compile: bool = False,
    resume: str | None = None,
    replay: str | None = None,
    seed: int | None = None,
    deterministic: bool = False,
    sanity_check: bool = True,
    epochs: int | None = None,
    scale_lr: bool = False,
    ema: bool = False,
    early_stopping: int | None = None,
    trial: bool = False,
    tensorboard: bool = False,
    wandb: bool = False,
    mlflow: bool = False,
    options: Sequence[str] = (),
    launcher: str = 'none',
    command: str = '',
    say: Say = _log,
) -> Finished:
    """Train as `tools/train.py` does.

    `dataset`, `val_dataset` and `images` replace the config's data as in `use_own_data`. `work_dir`
    is the config's own by default, else `work_dirs/<config name>`. `amp` takes bfloat16, and on
    GPUs that lack it float16. `compile` lets `torch.compile` have backbone and neck. `resume` is a
    checkpoint file, or `'auto'` for the last whole one of the work dir. `replay` is a
    `non_finite_iter_*.pth` that a training of this config wrote: its batch is run once more, and
    nothing is trained. `sanity_check` validates two batches before the first epoch. `epochs` scales
    the schedules too (`set_epochs`), `scale_lr` the rates by the batch (`scale_rate`), `ema`
    averages the weights, `early_stopping` is a number of validations without progress
    (`PatienceHook`), and `trial` cuts the training to a few iterations (`make_trial`), in a work
    dir with `_trial`. `tensorboard`, `wandb` and `mlflow` get losses and metrics too. `options` are
    `key=value` changes of the config. `say` gets the lines on data, length and resuming, and after
    Ctrl-C `command` is named to go on.

    Raises:
        OSError: For a config or own data that are missing, or a folder that cannot be written.
        ValueError: For anything else that stops the training before its first batch.
        CompileError: If PyTorch cannot compile the model here.
        UnreadableDataError: If too many images in a row cannot be read.
        NonFiniteError: If a loss or gradient is not finite.
        LostProcessError: If another process has ended, or does not answer.
        KeyboardInterrupt: After Ctrl-C or SIGTERM; it names the last checkpoint.
    """
    flags = dict(amp=amp, compile=compile, deterministic=deterministic, sanity_check=sanity_check)
    changes = Changes(epochs, scale_lr, ema, early_stopping, trial, tensorboard, wandb, mlflow)

    def set_up(cfg: Config) -> AnyRunner:
        for name, value in flags.items():
            flag(name, value)
        own = None
        if dataset is not None:
            folder = os.path.join(cfg.work_dir, DATASET)
            given = dict(val_data=val_dataset, images=images, folder=folder, options=options)
            own = use_own_data(cfg, dataset, **given)
            say(own.summary)
        _set_randomness(cfg, seed, deterministic)
        if amp:
            use_amp(cfg)
        _resume(cfg, resume, say)
        if not sanity_check:
            cfg.default_hooks = (cfg.get('default_hooks') or {}) | dict(sanity_check=None)
        for line in changes.make(cfg):
            say(line)
        add_hooks(cfg, ADDED)
        runner = _compiled(prepare(cfg, ('train', 'val'), own), compile)
        return runner if replay is None else replaying(runner, replay)

    def run(runner: AnyRunner) -> Result:
        with Stop() as runner.stop:
            runner.train()
        return training_result(runner)

    suffix = '_trial' if trial else ''
    load = functools.partial(_load, config, options, work_dir, launcher, suffix)
    return execute(load, set_up, run, Ending(command))


def evaluate(
    config: str,
    checkpoint: str,
    *,
    work_dir: str | None = None,
    options: Sequence[str] = (),
    launcher: str = 'none',
    show_dir: str | None = None,
    compile: bool = False,
    bootstrap: int | None = None,
) -> Finished:
    """Evaluate a checkpoint as `tools/test.py` does, and draw all predictions into `show_dir`.

    `bootstrap` adds standard errors over images, of so many draws (`BootstrapHook`). The other
    arguments and errors are those of `train`.
    """

    def set_up(cfg: Config) -> AnyRunner:
        flag('compile', compile)
        cfg.load_from, cfg.resume = checkpoint, False
        if show_dir is not None:
            check_writable(show_dir, folder=True)
            pictures = dict(type=ADDED['pictures'], test_dir=os.path.abspath(show_dir))
            cfg.default_hooks = (cfg.get('default_hooks') or {}) | dict(pictures=pictures)
        if bootstrap is not None:
            hook = dict(type='BootstrapHook', draws=integer('bootstrap', bootstrap, 2))
            cfg.default_hooks = (cfg.get('default_hooks') or {}) | dict(bootstrap=hook)
        add_hooks(cfg, ('progress', 'record', 'skip_unreadable'))
        return _compiled(prepare(cfg, ('test',)), compile)

    load = functools.partial(_load, config, options, work_dir, launcher)
    return execute(load, set_up, lambda runner: test_result(runner.test()), Ending(None))


def execute(
    load: Callable[[], Config],
    set_up: Callable[[Config], AnyRunner],
    run: Callable[[AnyRunner], Result],
    ending: Ending,
) -> Finished:
    """Set up and run; errors of the set-up become one line and leave no files behind.

    Args:
        load: Gives the config, with a `filename` and the `work_dir` that files go to.
        set_up: Gives its runner, before which nothing is trained.
        run: Trains or tests.
        ending: Describes errors.
    """
    start, files, runner = time.monotonic(), None, None
    try:
        with quiet_warnings():
            cfg = load()
            check_writable(cfg.work_dir, folder=True)
            files = StartedFiles(cfg.work_dir, os.path.basename(cfg.filename))
            runner = set_up(cfg)
            result, metrics = run(runner)
            # NCCL complains of a group that is left to the end of the interpreter
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
    except (Exception, KeyboardInterrupt) as error:
        if files is not None and not (runner and runner.is_running):
            files.remove()
        ended = ending.described(error, runner)
        if ended is error:
            raise
        raise ended from error
    return Finished(result, metrics, time.monotonic() - start, runner.work_dir)


def _compiled(runner: AnyRunner, compile: bool) -> AnyRunner:
    if compile and isinstance(runner, QuietFlexibleRunner):
        raise ValueError(
            "compile=True is not for runner_type='FlexibleRunner', whose strategies wrap parts of "
            'the model: train without it'
        )
    if compile:
        compile_parts(runner.model)
    return runner


def _load(
    path: str, options: Sequence[str], work_dir: str | None, launcher: str, suffix: str = ''
) -> Config:
    preflight.check_environment()
    cfg = load_config(path, options)
    own = work_dir or cfg.get('work_dir') or os.path.join('work_dirs', config_file(path).stem)
    cfg.work_dir = own + suffix
    cfg.launcher = launcher
    return cfg


def _resume(cfg: Config, given: str | None, say: Say) -> None:
    if given is not None:
        resume_from(cfg, given, say)
    elif cfg.get('resume') and not cfg.get('load_from'):
        resume_from(cfg, 'auto', say)  # as MMEngine would, but known to the checks


def _set_randomness(cfg: Config, seed: int | None, deterministic: bool) -> None:
    given = dict(seed=seed) if seed is not None else {}
    given |= dict(deterministic=True) if deterministic else {}
    cfg.randomness = dict(seed=None) | (cfg.get('randomness') or {}) | given


def prepare(cfg: Config, splits: Sequence[str], own: Used | None = None) -> AnyRunner:
    """Check, build the runner for some of `'train'`, `'val'`, `'test'`, and draw built-in data."""
    fit_to_machine(cfg)
    facts = Facts.of(cfg, splits)
    findings = list(config_findings(facts))
    _heed(each for each in findings if each.level == 'error')
    runner = build_runner(cfg)
    copy_without_waiting(runner.model)
    _heed(map(warning, own.warnings if own else ()))  # only now that there is a log file
    if facts.load_from and (cfg.get('resume') or 'test' in splits):
        resumes = bool(cfg.get('resume'))
        misfits = list(preflight.fit_findings(runner.model, facts.load_from, resume=resumes))
        misfits += resume_findings(runner.model, cfg, facts.load_from) if resumes else ()
        _heed(sorted(misfits, key=lambda each: each.level != 'error'))
    _heed([*findings, *model_findings(facts, runner.model)])
    if facts.builtin_data:  # only now that the model is known to be in order
        write_shapes(**facts.builtin_data)
        _heed(map(error, missing_data(facts)))
    for split in splits:
        # In every process, as `Runner.train` would
        loader = built(cfg, functools.partial(runner.loader, split))
        if loader is not None and runner.rank == 0:
            _heed(channel_findings(runner.model, loader.dataset, split))
            for given in (start_findings, kept_findings):
                _heed(beside_own_data(given(loader.dataset, split), own and own.folder))
            _heed(evaluator_findings(facts, split))
            looks = few_findings if split == 'train' else image_findings
            _heed(looks(loader.dataset, split))
    return runner


def _heed(findings: Iterable[Finding]) -> None:
    """Stop at the first error; log the warnings and notes before it."""
    for each in findings:
        if each.level == 'error':
            raise ValueError(each.text)
        level = logging.WARNING if each.level == 'warning' else logging.INFO
        print_log(each.text, logger='current', level=level)
