"""Another length of a training, a trial of it, and the learning rate of another batch."""

import math
import os
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from vit_backbones.arguments import integer
from vit_backbones.checks.placed_schedules import Length, ended, following, placed, without
from vit_backbones.config.facts import Facts
from vit_backbones.config.loading import use_scope
from vit_backbones.errors import counted

TRIAL = 4  # iterations, images to validate on
_TRIAL_BATCH = 2
# Where launchers leave the number of processes
_PROCESSES = dict(pytorch='WORLD_SIZE', slurm='SLURM_NTASKS', mpi='OMPI_COMM_WORLD_SIZE')
# What counts steps in MMEngine's schedules and ours
_STEPS = ('begin', 'end', 'T_max', 'total_steps', 'step_size', 'milestones', 'warmup', 'periods')
_WHOLE = ('total_steps', 'step_size', 'milestones', 'periods')  # MMEngine takes no parts of epochs


def set_epochs(config: Config, epochs: int) -> str:
    """Let a training have so many epochs, and scale its schedules, warm-ups too.

    A training that counts iterations gets those of that many epochs, and its intervals of
    validations and checkpoints are scaled too. Steps of hooks in the config stay.

    Returns:
        A line with the new length.

    Raises:
        ValueError: If the config has no length, or an epoch has no batch.
    """
    epochs, train = integer('epochs', epochs, 1), config.get('train_cfg') or {}
    given = dict(train)
    before = train.get('max_epochs', train.get('max_iters'))
    if not isinstance(before, int):
        raise ValueError('epochs=... is for a config with train_cfg.max_epochs or max_iters')
    if 'max_epochs' in train:
        train.max_epochs, line = epochs, counted(epochs, 'epoch')
        ratio = epochs / before
    else:
        images, batch = _images(config), _batch(config)
        loader = config.train_dataloader
        length = (math.floor if loader.get('drop_last') else math.ceil)(images / batch)
        if length == 0:
            raise ValueError(
                f'epochs={epochs}: {counted(images, "image")} are less than a batch of {batch}, '
                f'which is dropped (drop_last=True): set train_dataloader.batch_size lower'
            )
        train.max_iters = length * epochs
        ratio = train.max_iters / before
        _scale_intervals(config, ratio)
        line = (
            f'{counted(epochs, "epoch")} = {counted(train.max_iters, "iteration")} '
            f'({counted(images, "image")}, {batch} a batch)'
        )
    return f'length: {line}{_scale_schedules(config, ratio, Length.of(given))}'


def _scale_schedules(config: Config, ratio: float, before: Length) -> str:
    """Scale what counts steps, and leave out what has none then; what to say of it."""
    schedules, changed = config.get('param_scheduler'), False
    kept = {*ended(schedules, before), *following(schedules)}  # checks and runner see to these
    for _, schedule in placed(schedules):
        for key in set(_STEPS) & schedule.keys():
            exact = _is_exact(schedule) and key not in _WHOLE
            scale = _scaled_periods if key == 'periods' else _scaled
            scaled = scale(schedule[key], ratio, exact=exact)
            changed |= scaled != schedule[key]
            schedule[key] = scaled
    over = ended(schedules, Length.of(config.train_cfg))
    if gone := {place: name for place, name in over.items() if place not in kept}:
        config.param_scheduler = without(schedules, gone)
    return f'; schedules scaled by {ratio:.3g}' * changed + ''.join(
        f'; {name} would have no step, and is left out' for name in gone.values()
    )


def _is_exact(schedule: dict[str, Any]) -> bool:
    """Whether it takes parts of epochs, which MMEngine turns into iterations."""
    return schedule.get('by_epoch', True) and schedule.get('convert_to_iter_based', False)


def _scaled(value: Any, ratio: float, *, exact: bool) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_scaled(each, ratio, exact=exact) for each in value)
    if not isinstance(value, (int, float)) or value == 0 or math.isinf(value):
        return value
    return value * ratio if exact else max(1, round(value * ratio))


def _scaled_periods(value: Sequence[float], ratio: float, *, exact: bool) -> Sequence[float]:
    """Periods that together are as long as the training."""
    ends = [_scaled(end, ratio, exact=exact) for end in accumulate(value)]
    return type(value)(max(1, end - start) for start, end in pairwise([0, *ends]))


def _scale_intervals(config: Config, ratio: float) -> None:
    saving = (config.get('default_hooks') or {}).get('checkpoint') or {}
    for node, key in ((config.train_cfg, 'val_interval'), (saving, 'interval')):
        if isinstance(node.get(key), int):
            node[key] = max(1, round(node[key] * ratio))


def _images(config: Config) -> int:
    """Images to train on, as the config filters them."""
    use_scope(config)
    return len(DATASETS.build(config.train_dataloader.dataset))


def _batch(config: Config) -> int:
    """Images of a step, in all processes, which MMEngine does not know yet."""
    variable = _PROCESSES.get(config.get('launcher', 'none'))
    processes = int(os.environ.get(variable, 1)) if variable else 1
    return config.train_dataloader.get('batch_size', 1) * processes


def scale_rate(config: Config) -> str:
    """Let the learning rates follow the size of the batch, in proportion.

    The config says in `auto_scale_lr.base_batch_size` for how many images a step, of all processes,
    its rates are. MMEngine's scaling counts processes; steps that are accumulated count here too.

    Source: Goyal et al., 2017, arXiv:1706.02677.

    Returns:
        A line with both batches and the factor.

    Raises:
        ValueError: If the config does not say it.
    """
    given = config.get('auto_scale_lr') or {}
    base = given.get('base_batch_size')
    if not isinstance(base, int) or base < 1:
        raise ValueError(
            'scale_lr=True: the config does not say for which batch its learning rate is; set '
            'auto_scale_lr.base_batch_size, images of all GPUs in a step'
        )
    accumulated = (config.get('optim_wrapper') or {}).get('accumulative_counts', 1)
    batch = _batch(config) * accumulated
    config.auto_scale_lr = dict(given) | dict(enable=True, base_batch_size=base / accumulated)
    return (
        f'learning rates x {batch / base:.4g}: {batch} images a step, and the config is for {base}'
    )


def make_trial(config: Config) -> str:
    """Cut a training to a few iterations of two images, a validation of four, and a picture.

    The rate is constant, and no checkpoint is kept as the best.

    Returns:
        A line on what is left, and that its metric means nothing.
    """
    loader = config.train_dataloader
    loader.batch_size = min(loader.get('batch_size', 1), _TRIAL_BATCH)
    config.train_cfg = dict(type='IterBasedTrainLoop', max_iters=TRIAL, val_interval=TRIAL)
    config.param_scheduler = None
    config.log_processor = (config.get('log_processor') or {}) | dict(by_epoch=False)
    hooks = dict(config.get('default_hooks') or {})
    logger = dict(interval=1, log_metric_by_epoch=False)
    hooks['logger'] = dict(hooks.get('logger') or dict(type='LoggerHook')) | logger
    saving = dict(by_epoch=False, interval=TRIAL, save_param_scheduler=False)
    hooks['checkpoint'] = dict(type='CheckpointHook', **saving)
    hooks['sanity_check'] = None
    config.default_hooks = hooks
    validated = _few_to_validate(config)
    return (
        f'trial: {TRIAL} iterations of {counted(loader.batch_size, "image")}{validated}, constant '
        f'learning rates; its metric means nothing'
    )


def _few_to_validate(config: Config) -> str:
    for _, dataset in Facts.of(config, ('val',)).datasets.get('val', ()):
        indices = dataset.get('indices')
        if indices is None or isinstance(indices, int):
            dataset['indices'] = min(indices or TRIAL, TRIAL)
        else:
            dataset['indices'] = list(indices)[:TRIAL]
    return (
        f', at most {counted(TRIAL, "image")} to validate on'
        if config.get('val_dataloader')
        else ''
    )
