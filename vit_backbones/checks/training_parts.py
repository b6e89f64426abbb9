"""Whether the parts around the model can be built: hooks, schedules, dataloaders."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from mmengine.registry import HOOKS, MODELS, OPTIMIZERS, PARAM_SCHEDULERS
from torch import nn

from vit_backbones.checks.findings import Finding, error
from vit_backbones.config.explain import describe
from vit_backbones.config.facts import Facts, listed
from vit_backbones.config.registries import arguments_of, find_registered

_EPOCH = 100  # iterations; the data are not read yet


def part_findings(facts: Facts) -> Iterator[Finding]:
    """Hooks and schedules that cannot be built, and options of workers where there are none."""
    yield from _worker_findings(facts)
    for place, raised in built_hooks(facts)[1]:
        yield error(f'{place}: {describe(raised)}')
    yield from _schedule_findings(facts)


def built_hooks(facts: Facts) -> tuple[list[Any], list[tuple[str, Exception]]]:
    """The hooks of a config, and the places of those that cannot be built, with the exceptions."""
    hooks, failed = [], []
    named = [
        (f'default_hooks.{k}', v) for k, v in (facts.config.get('default_hooks') or {}).items()
    ]
    own = [(f'custom_hooks.{i}', v) for i, v in enumerate(listed(facts.config.get('custom_hooks')))]
    for place, node in [*named, *own]:
        if isinstance(node, dict) and _is_known(node, facts.scope):
            try:
                hooks.append(_built_hook(node))
            except Exception as raised:  # each class has its own
                if 'get_current_instance' not in str(raised):  # of the runner, which is not there
                    failed.append((place, raised))
    return hooks, failed


def _built_hook(node: dict[str, Any]) -> Any:
    """Build a hook; one that averages weights averages a small module too."""
    hook = HOOKS.build(
        {key: value for key, value in copy.deepcopy(node).items() if key != 'priority'}
    )
    if isinstance(averaging := getattr(hook, 'ema_cfg', None), dict):
        MODELS.build(copy.deepcopy(averaging), default_args=dict(model=nn.Linear(1, 1)))
    return hook


def _is_known(node: dict[str, Any], scope: str | None) -> bool:
    """Whether type and keys of a dict are known; the check of keys reports others."""
    kind = node.get('type')
    kinds = find_registered(kind, scope) if isinstance(kind, str) else [kind] if kind else []
    for each in kinds:
        names, more = arguments_of(each)
        if more or names.union(('type', 'priority', '_scope_')).issuperset(node):
            return True
    return False


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
    schedules = facts.config.get('param_scheduler')
    training = facts.config.get('train_cfg') or {}
    if isinstance(schedules, dict) and 'type' not in schedules:  # for several optimizers
        return
    for i, node in enumerate(listed(schedules)):
        if not isinstance(node, dict) or not _is_known_schedule(node, facts.scope):
            continue
        place = (
            f'param_scheduler.{i}' if isinstance(schedules, (list, tuple)) else 'param_scheduler'
        )
        by_epoch = node.get('by_epoch', True)
        whole = training.get('max_epochs' if by_epoch else 'max_iters')
        if whole is None:
            whole = training.get('max_epochs', 1) * _EPOCH
        given = dict(end=whole) | copy.deepcopy(dict(node))
        try:
            defaults = dict(optimizer=_optimizer(facts), epoch_length=_EPOCH)
            PARAM_SCHEDULERS.build(given, default_args=defaults)
        except Exception as raised:  # each class has its own
            yield error(f'{place}: {describe(raised)}')


def _is_known_schedule(node: dict[str, Any], scope: str | None) -> bool:
    plain = {key: value for key, value in node.items() if key != 'convert_to_iter_based'}
    return _is_known(plain, scope)


def _optimizer(facts: Facts) -> torch.optim.Optimizer:
    """The config's optimizer, of one parameter, or one that has all that schedules change."""
    parameters = [nn.Parameter(torch.zeros(1))]
    wanted = (facts.config.get('optim_wrapper') or {}).get('optimizer') or {}
    build: Callable[..., Any] = OPTIMIZERS.build
    try:
        return build(copy.deepcopy(dict(wanted)), default_args=dict(params=parameters))
    except Exception:  # building the real one reports it
        return torch.optim.SGD(parameters, lr=1.0, momentum=0.9)
