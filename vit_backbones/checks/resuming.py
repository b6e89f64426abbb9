"""Whether the optimizer of a checkpoint is that of the config, before a training resumes.

PyTorch compares only the sizes of parameter groups, and then moves each state to the parameter in
its place, whichever that is.
"""

import math
from collections.abc import Iterator
from itertools import chain
from typing import Any

from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn
from torch.optim import Optimizer

from vit_backbones.checkpoints import contents
from vit_backbones.checks.findings import Finding, error, warning
from vit_backbones.checks.wiring import bare
from vit_backbones.errors import counted, some
from vit_backbones.terminal import silence

RECORD = 'optimizer'  # in the `meta` of a checkpoint; older files lack it
# States of one value for each value of the parameter
_STATES = ('exp_avg', 'exp_avg_sq', 'momentum_buffer', 'square_avg', 'exp_inf', 'sum', 'prev')
# How PyTorch computes, which versions name differently
_WAYS = ('foreach', 'maximize', 'capturable', 'differentiable', 'fused', 'decoupled_weight_decay')


def described_optimizer(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Its class, and the names of the parameters in each of its groups."""
    named = {
        id(parameter): name.replace('_fsdp_wrapped_module.', '')
        for name, parameter in bare(model).named_parameters()
    }
    groups = [[named.get(id(p), '') for p in group['params']] for group in optimizer.param_groups]
    return dict(type=type(optimizer).__name__, groups=groups)


def resume_findings(model: nn.Module, config: Config, path: str) -> Iterator[Finding]:
    """Whether the optimizer's state in a checkpoint is for the parameters that learn now."""
    content = {} if '://' in path else contents(path, 'meta')
    saved, own = content.get('optimizer') or {}, _optimizer(model, config)
    if own is None or 'param_groups' not in saved:
        return
    record = (content.get('meta') or {}).get(RECORD) or _of_shards(saved)
    if difference := _difference(saved, record, own, described_optimizer(model, own)):
        yield error(
            f'checkpoint {path!r} cannot be resumed: {difference}; resume with the config of its '
            f'training, or start from its weights by options=load_from={path}'
        )
    elif kept := _other_options(saved, own, config):
        yield warning(
            f'a resumed training keeps the options of the optimizer in {path!r}, and those of the '
            f'config change nothing: {kept}; to use them, start from its weights by '
            f'load_from={path}'
        )


def _optimizer(model: nn.Module, config: Config) -> Optimizer | None:
    """A new optimizer of the config, `None` for several."""
    if 'optimizer' not in config.optim_wrapper:
        return None
    with silence():  # the training logs the same
        wrapper = build_optim_wrapper(bare(model), config.optim_wrapper)
    return getattr(wrapper, 'optimizer', None)


def _of_shards(saved: dict[str, Any]) -> dict[str, Any]:
    """A record from FSDP's state, which has names for numbers."""
    groups = [group['params'] for group in saved['param_groups']]
    return dict(groups=groups) if isinstance(next(chain(*groups), None), str) else {}


def _difference(
    saved: dict[str, Any], record: dict[str, Any], own: Optimizer, now: dict[str, Any]
) -> str:
    """How the state in the file differs from the optimizer of the config; empty if it fits."""
    kind = _other_class(saved, record, own)
    return kind or _other_groups(saved, record, now) or _other_shapes(saved, now, own)


def _other_class(saved: dict[str, Any], record: dict[str, Any], own: Optimizer) -> str:
    kind = type(own).__name__
    if record.get('type', kind) != kind:
        return f'its optimizer is {record["type"]}, that of the config {kind}'
    lacks = [key for key in own.defaults if key not in saved['param_groups'][0]]
    if lacks := [key for key in lacks if key not in _WAYS]:
        return f'its optimizer is no {kind} as that of the config, it has no {", ".join(lacks)}'
    return ''


def _other_groups(saved: dict[str, Any], record: dict[str, Any], own: dict[str, Any]) -> str:
    """How the groups of parameters differ, by names or, without a record, by numbers."""
    counts = [len(group['params']) for group in saved['param_groups']]
    now = [len(group) for group in own['groups']]
    before = record.get('groups')
    if before == own['groups'] or (before is None and counts == now):
        return ''
    difference = f'its optimizer has {_size(counts)}, that of the config {_size(now)}'
    if before is None:
        return f'{difference} (frozen layers, layer decay, LoRA or custom_keys changed)'
    old, new = dict.fromkeys(chain(*before)), dict.fromkeys(chain(*own['groups']))
    changes = {
        'learn no more': [name for name in old if name not in new],
        'learn now': [name for name in new if name not in old],
    }
    parts = [f'{len(each)} {what} ({some(each)})' for what, each in changes.items() if each]
    same = 'the same parameters in other groups (layer decay or custom_keys)'
    return f'{difference}: {" and ".join(parts) or same}'


def _size(counts: list[int]) -> str:
    return f'{counted(sum(counts), "parameter")} in {counted(len(counts), "group")}'


def _other_shapes(saved: dict[str, Any], record: dict[str, Any], own: Optimizer) -> str:
    """The first parameter whose state has another shape, as of another `img_size`."""
    numbers = chain(*(group['params'] for group in saved['param_groups']))
    parameters = chain(*(group['params'] for group in own.param_groups))
    for number, name, parameter in zip(numbers, chain(*record['groups']), parameters, strict=True):
        states = saved['state'].get(number, {})
        for state in (states[key] for key in _STATES if key in states):
            if state is not None and state.shape != parameter.shape:
                return (
                    f"its optimizer's state at the place of {name} is of shape "
                    f'{tuple(state.shape)}, the parameter of {tuple(parameter.shape)} (another '
                    f'img_size, or other layers that learn)'
                )
    return ''


def _other_options(saved: dict[str, Any], own: Optimizer, config: Config) -> str:
    """Options that a resumed training takes from the file, while the config has others."""
    scaled = (config.get('auto_scale_lr') or {}).get('enable')
    follows = scaled or 'OneCycle' in str(config.get('param_scheduler'))
    for old, new in zip(saved['param_groups'], own.param_groups, strict=True):
        for key in own.defaults.keys() - {*_WAYS, *(('lr',) if follows else ())}:
            before, now = old.get(f'initial_{key}', old.get(key)), new[key]
            if not _equal(before, now):
                return f'{key}={now} (the file has {before})'
    return ''


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-6)
    both = (one, other)
    return (
        tuple(one) == tuple(other)
        if all(isinstance(e, (list, tuple)) for e in both)
        else one == other
    )
