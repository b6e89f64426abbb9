"""Keys and types of a config that nothing reads, all of them at once."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from vit_backbones.checks.findings import Finding, error, warning
from vit_backbones.config.explain import describe
from vit_backbones.config.loading import refusal
from vit_backbones.config.registries import find_registered

# Built by functions of mmcv and mmdet that read keys of their own
_OPAQUE = ('_cfg', 'plugins', '_delete_')
_HOOKS = ('default_hooks', 'custom_hooks')


def unknown_findings(config: Config) -> Iterator[Finding]:
    """What no class of a config takes.

    Building the model tells its unknown keys for sure, one by one; some of its classes read more
    than their signatures say, so here only what is very like a key is told of it.

    Args:
        config: The merged config.

    Returns:
        An error for each `type` that is not registered and each key that its class does not take; a
        warning where a key is only very like one that is read, such as `optim_wraper`.
    """
    for place, node, scope in _dicts(config._cfg_dict, '', config.get('default_scope')):
        kind, lenient = node.get('type'), place.split('.')[0] in ('', 'model')
        if isinstance(kind, str) and not find_registered(kind, scope):
            if not lenient:
                where = f'{scope or "mmengine"}::{_registry(place)}'
                yield error(
                    f'{place}: {describe(KeyError(f"{kind} is not in the {where} registry"))}'
                )
            continue
        for key in node:
            if key == 'priority' and place.startswith(_HOOKS):
                continue
            reason, certain = refusal(key, place, kind, scope, lenient=lenient)
            if reason:
                yield error(reason) if certain else warning(reason)


def _dicts(node: Any, place: str, scope: str | None) -> Iterator[tuple[str, dict, str | None]]:
    """Dicts that a class or MMEngine itself reads, with their places and scopes."""
    if isinstance(node, (list, tuple)):
        for i, each in enumerate(node):
            yield from _dicts(each, f'{place}.{i}', scope)
    elif isinstance(node, dict):
        scope = node.get('_scope_', scope)
        if place != 'default_hooks':  # which takes any name
            yield place, node, scope
        if str(node.get('type')).endswith('Albu'):  # below are Albumentations' own classes
            return
        for key, value in node.items():
            # At the top are variables of the config file as well
            read = place or refusal(key, '', None, None)[0] is None
            if read and not (place and str(key).endswith(_OPAQUE)):
                yield from _dicts(value, f'{place}.{key}'.lstrip('.'), scope)


def _registry(place: str) -> str:
    """Name of MMEngine's root registry for the types at a place."""
    top = place.split('.')[0]
    if top.endswith('_dataloader'):
        return 'transform' if '.pipeline' in place else 'dataset'
    names = {
        'optim_wrapper': 'optimizer',
        'param_scheduler': 'parameter scheduler',
        'default_hooks': 'hook',
        'custom_hooks': 'hook',
        'val_evaluator': 'metric',
        'test_evaluator': 'metric',
        'visualizer': 'visualizer',
    }
    return names.get(top, 'model')
