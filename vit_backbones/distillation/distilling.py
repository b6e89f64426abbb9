"""The whole distillation: checks, models, data, and MMEngine's runner between them."""

import functools
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.device import get_device

from vit_backbones.arguments import integer, positive
from vit_backbones.checks import preflight
from vit_backbones.devices import choose_device
from vit_backbones.distillation.crops import RATIO, SCALE
from vit_backbones.distillation.distiller import Distiller
from vit_backbones.distillation.pairing import Pair, load_pair
from vit_backbones.distillation.student_hook import NOTES, STUDENT
from vit_backbones.distillation.teacher import Teacher
from vit_backbones.distillation.training_plan import SPAN, Plan, as_config
from vit_backbones.images import UnreadableImageError, find_images, image_size
from vit_backbones.models.chosen import Choice
from vit_backbones.training.added_hooks import add_hooks
from vit_backbones.training.amp import use_amp
from vit_backbones.training.ending import Ending
from vit_backbones.training.feature_store import FeatureStore
from vit_backbones.training.last_checkpoint import checkpoints, meta_of, resume_from
from vit_backbones.training.machine import copy_without_waiting, fit_to_machine
from vit_backbones.training.outcome import Finished, Result
from vit_backbones.training.run import execute
from vit_backbones.training.runner import QuietRunner
from vit_backbones.training.seeded_data import seeded
from vit_backbones.training.stopping import Stop

_HOOKS = ('curves', 'data_wait', 'loss_watch', 'non_finite', 'progress', 'record')
_RUNNER = (  # arguments of the runner that the config holds
    'work_dir train_dataloader train_cfg optim_wrapper param_scheduler default_hooks load_from '
    'resume log_processor randomness env_cfg experiment_name'
).split()


def distill(plan: Plan, say: Callable[[str], None], command: str = '') -> Finished:
    """Teach a student the features of a teacher, and write it as `student.safetensors`.

    A distillation that was killed goes on from its last checkpoint by `resume`, with the losses
    that it would have had. `say` gets lines on resuming, and after Ctrl-C `command` is named.

    Raises:
        OSError: For files that are not there, or a folder that cannot be written.
        ValueError: For models, sizes or options that do not fit together.
        UnreadableDataError: If too many images in a row cannot be read.
        KeyboardInterrupt: After Ctrl-C or SIGTERM; it names the last checkpoint.
    """

    def load() -> Config:
        preflight.check_environment()
        _check(plan)
        # MMEngine keeps losses by this name, and runs of one second would share them
        known = dict(work_dir=str(plan.out), experiment_name=f'distillation_{time.monotonic_ns()}')
        return Config(known, cfg_text='#', filename='distillation.py')

    def run(runner: QuietRunner) -> Result:
        with Stop() as runner.stop:
            runner.train()
        return _result(runner)

    return execute(load, functools.partial(_set_up, plan, say), run, Ending(command))


def _check(plan: Plan) -> None:
    """Refuse what needs no model to be seen."""
    _check_weights('teacher', plan.teacher, '')
    _check_weights('student', plan.student, ', or scratch=True')
    for name in ('epochs', 'batch_size', 'save_every'):
        integer(name, getattr(plan, name), 1)
    for name in ('lr', 'max_gb'):
        positive(name, getattr(plan, name))
    for name in ('iters', 'views'):
        if (given := getattr(plan, name)) is not None:
            integer(name, given, 1)
    if plan.cache is not None and plan.views is None:
        raise ValueError('cache=... keeps features of fixed crops: say how many by views=N')
    if plan.amp and choose_device(plan.device).type != get_device():
        raise ValueError(f'amp=True is for {get_device()}, and device={plan.device}: leave one out')
    held = [*checkpoints(plan.out), *plan.out.glob(STUDENT)]
    if held and plan.resume is None:
        raise ValueError(
            f'{plan.out} holds a distillation ({held[0].name}): go on with resume=True, or name '
            f'another out=...'
        )


def _check_weights(role: str, choice: Choice, more: str) -> None:
    if choice.model and not (choice.checkpoint or choice.pretrained or choice.scratch):
        raise ValueError(
            f'the {role} {choice.model} has no weights: write {choice.model}=FILE, or give '
            f'pretrained=True{more}'
        )


def _set_up(plan: Plan, say: Callable[[str], None], cfg: Config) -> QuietRunner:
    place, paths = choose_device(plan.device), find_images(plan.images)
    _check_some_image(paths)
    sizes = dict(size=plan.size, teacher_size=plan.teacher_size, seed=plan.seed)
    pair = load_pair(plan.teacher, plan.student, **sizes)
    cfg.merge_from_dict(as_config(plan, pair, len(paths)))
    if plan.resume is not None:
        resume_from(cfg, plan.resume, say)
        _check_resume(cfg)
    if plan.amp:
        use_amp(cfg)
    add_hooks(cfg, (*_HOOKS, 'skip_unreadable'))
    fit_to_machine(cfg)
    store = None if plan.cache is None else _store(plan, pair, paths, place.type)
    teacher = Teacher(pair.teacher, pair.grid, with_cls=pair.with_cls, store=store)
    with seeded(plan.seed):
        model = Distiller(pair.student, teacher)
    runner = QuietRunner(model, cfg=cfg, **{name: cfg.get(name) for name in _RUNNER})
    copy_without_waiting(runner.model.to(place))
    runner.logger.info(_line(pair, len(paths)))
    return runner


def _check_some_image(paths: Sequence[Path]) -> None:
    """Refuse a list of files none of which is an image, before anything is written."""
    reason = ''
    for path in paths:
        try:
            image_size(path)
        except UnreadableImageError as error:
            reason = reason or str(error)
        else:
            return
    raise ValueError(f'none of {len(paths)} images can be read: {reason}')


def _check_resume(cfg: Config) -> None:
    """Refuse a checkpoint of something else."""
    if not cfg.get('resume'):
        return
    noted, now = meta_of(cfg.load_from).get(NOTES), cfg.default_hooks.student.notes.to_dict()
    if noted is None:
        raise ValueError(f'resume={cfg.load_from}: this is no checkpoint of a distillation')
    for name, value in now.items():
        if noted.get(name) != value:
            raise ValueError(
                f'{cfg.load_from} was written with {name} {_shown(noted.get(name))}, and now it is '
                f'{_shown(value)}: go on as it began, or name another out=...'
            )


def _shown(value: Any) -> str:
    return ' '.join(map(str, value)) if isinstance(value, list) else str(value)


def _store(plan: Plan, pair: Pair, paths: Sequence[Path], device: str) -> FeatureStore:
    """The place for features of these images, crops and teacher; others get another folder."""
    about = dict(teacher=pair.teacher.name, views=plan.views, seed=plan.seed)
    crops = pair.size, pair.teacher_size, pair.with_cls, SCALE, RATIO
    layers = pair.teacher.backbone.out_indices
    digest = hashlib.sha256(f'{pair.teacher.fingerprint(crops, layers, about, device)}\n'.encode())
    for path in paths:
        known = path.stat() if path.exists() else None
        digest.update(f'{path} {known and (known.st_size, known.st_mtime_ns)}\n'.encode())
    folder = plan.cache / digest.hexdigest()[:16]
    return FeatureStore(folder, plan.views * len(paths), 'float16', plan.max_gb, about)


def _line(pair: Pair, num_images: int) -> str:
    """Models and sizes in a line."""
    (h, w), (height, width), (rows, columns) = pair.size, pair.teacher_size, pair.grid
    return (
        f'{pair.student.name} ({pair.student.weights}) learns from {pair.teacher.name}: images of '
        f'{h}x{w} and {height}x{width}, {rows}x{columns} patches'
        f'{" and CLS" if pair.with_cls else ", no CLS, which both would need"}'
    )


def _result(runner: QuietRunner) -> Result:
    """The loss at the start and at the end."""
    losses = runner.message_hub.get_scalar('train/loss').data[0]
    span = max(1, min(SPAN, len(losses) // 5))
    first, last = float(np.mean(losses[:span])), float(np.mean(losses[-span:]))
    return f'loss {first:.4f} at the start, {last:.4f} at the end', dict(first=first, last=last)
