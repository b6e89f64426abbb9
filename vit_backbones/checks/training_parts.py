"""Whether hooks and schedules can be built, and what hooks and dataloaders need is there."""

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from mmengine.registry import HOOKS, MODELS, OPTIMIZERS, PARAM_SCHEDULERS
from torch import nn

from vit_backbones.checks.findings import Finding, error, warning
from vit_backbones.checks.placed_schedules import Length, placed
from vit_backbones.checks.schedules import fitted
from vit_backbones.config.explain import describe
from vit_backbones.config.facts import Facts, listed, type_name
from vit_backbones.config.options import refusal
from vit_backbones.config.registries import find_registered
from vit_backbones.errors import some

Failed = list[tuple[str, Exception]]  # places in the config

_EPOCH = 100  # iterations; the data are not read yet


def part_findings(facts: Facts, failed: Failed) -> Iterator[Finding]:
    """Hooks (`failed`) and schedules that cannot be built, options of workers where are none."""
    yield from _worker_findings(facts)
    for place, raised in failed:
        yield error(f'{place}: {describe(raised)}')
    yield from _schedule_findings(facts)


def built_hooks(facts: Facts) -> tuple[list[Any], Failed]:
    """The hooks of a config, and the places of those that cannot be built, with the exceptions."""
    hooks: list[Any] = []
    failed: Failed = []
    defaults = facts.config.get('default_hooks') or {}
    if not isinstance(defaults, dict):
        return hooks, [('default_hooks', TypeError(f'takes hooks by name, got {defaults!r}'))]
    own = listed(facts.config.get('custom_hooks'))
    named = [(f'default_hooks.{key}', node) for key, node in defaults.items()]
    for place, node in [*named, *((f'custom_hooks.{i}', node) for i, node in enumerate(own))]:
        if isinstance(node, dict) and _is_known(place, node, facts.scope):
            try:
                hooks.append(_built_hook(node))
            except Exception as raised:  # each class has its own
                if 'get_current_instance' not in str(raised):  # of the runner, which is not there
                    failed.append((place, raised))
    return hooks, failed


def monitor_findings(hooks: Iterable[Any], metrics: dict[str, Any]) -> Iterator[Finding]:
    """Whether the metrics that hooks compare, as `save_best`, are among those of a validation.

    MMEngine raises after the first validation. Models that detect nothing have no metrics.
    """
    if not metrics:
        return
    given = some(metrics, 8)
    for hook in hooks:
        wanted = [(f'{type(hook).__name__}.monitor', getattr(hook, 'monitor', None))]
        wanted += [('CheckpointHook.save_best', e) for e in getattr(hook, 'save_best', None) or ()]
        for place, name in wanted:
            if isinstance(name, str) and name != 'auto' and name not in metrics:
                yield error(
                    f'{place} is {name!r}, which is no metric of val_evaluator: name one of {given}'
                )


def _built_hook(node: dict[str, Any]) -> Any:
    """Build a hook; one that averages weights averages a small module too."""
    hook = HOOKS.build(
        {key: value for key, value in copy.deepcopy(node).items() if key != 'priority'}
    )
    if isinstance(averaging := getattr(hook, 'ema_cfg', None), dict):
        MODELS.build(copy.deepcopy(averaging), default_args=dict(model=nn.Linear(1, 1)))
    return hook


def _is_known(place: str, node: dict[str, Any], scope: str | None) -> bool:
    """Whether type and keys of a dict are known; the check of keys reports others."""
    kind = node.get('type')
    if not find_registered(kind, scope):
        return False
    return not any(all(refusal(key, place, kind, scope)) for key in node if key != 'priority')


def _worker_findings(facts: Facts) -> Iterator[Finding]:
    """PyTorch refuses some options of a dataloader without workers."""
    for split in facts.datasets:
        loader = facts.config.get(f'{split}_dataloader') or {}
        if loader.get('num_workers', 0):
            continue
        for key in ('persistent_workers', 'prefetch_factor'):
            if loader.get(key):
                yield error(
                    f'{split}_dataloader.{key}={loader[key]} needs workers, but num_workers is 0: '
                    f'leave it out, or set num_workers'
                )


def _schedule_findings(facts: Facts) -> Iterator[Finding]:
    """Whether each schedule can be built, as MMEngine's runner builds it."""
    training, wrapper = (facts.config.get(key) for key in ('train_cfg', 'optim_wrapper'))
    length = Length.of(training, optim_wrapper=wrapper)
    schedules, lines = fitted(facts.config.get('param_scheduler'), length)
    yield from map(warning, lines)
    assumed = Length.of(training, _EPOCH)
    for place, node in placed(schedules):
        whole = assumed.in_steps_of(node) or 1
        behind = node.get('begin', 0) >= whole  # `schedule_findings` has a line on it
        if behind or not _is_known(place, node, facts.scope):
            continue
        given = dict(end=whole) | copy.deepcopy(dict(node))
        try:
            defaults = dict(optimizer=_optimizer(facts), epoch_length=_EPOCH)
            PARAM_SCHEDULERS.build(given, default_args=defaults)
        except Exception as raised:  # each class has its own
            yield error(f'{place}: {describe(raised)}')


def _optimizer(facts: Facts) -> torch.optim.Optimizer:
    """The config's optimizer, of one parameter, or one that has all that schedules change."""
    wrapper = facts.config.get('optim_wrapper') or {}
    parameters: list[Any] = [dict(params=[nn.Parameter(torch.zeros(1))])]
    if type_name(dict(type=wrapper.get('constructor'))) == 'EoMTOptimWrapperConstructor':
        parameters[0]['in_vit'] = True
    wanted = wrapper.get('optimizer') or {}
    build: Callable[..., Any] = OPTIMIZERS.build
    try:
        return build(copy.deepcopy(dict(wanted)), default_args=dict(params=parameters))
    except Exception:  # building the real one reports it
        return torch.optim.SGD(parameters, lr=1.0, momentum=0.9)
