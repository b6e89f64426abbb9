"""Keys and types of a config that nothing reads, all of them at once."""

from collections.abc import Iterator

from vit_backbones.checks.findings import Finding, error, warning
from vit_backbones.config.explain import not_registered
from vit_backbones.config.facts import Facts, Node, nodes, type_name
from vit_backbones.config.options import refusal
from vit_backbones.config.registries import find_registered

# Functions of mmcv and mmdet read keys of their own there
_OPAQUE = ('_cfg', 'plugins', '_delete_')
_HOOKS = ('default_hooks', 'custom_hooks')


def unknown_findings(facts: Facts) -> Iterator[Finding]:
    """Each `type` that is not registered, and each key that its class does not take.

    A key that is similar to one that is read, such as `optim_wraper`, gives a warning. In the
    model only near misses are errors here: some of its classes read more than their signatures
    say, and building it finds the others.
    """
    for place, node, scope in nodes(facts.config, closed=_is_closed):
        if place == 'default_hooks':  # which takes any name
            continue
        kind, lenient = node.get('type'), place.split('.')[0] in ('', 'model')
        if isinstance(kind, str) and not find_registered(kind, scope):
            if not lenient:
                line = not_registered(kind, scope or 'mmengine', _registry(place))
                yield error(f'{place}: {line}')
            continue
        for key in node:
            if key == 'priority' and place.startswith(_HOOKS):
                continue
            reason, certain = refusal(key, place, kind, scope, lenient=lenient)
            if reason:
                yield error(reason) if certain else warning(reason)


def _is_closed(node: Node, key: str) -> bool:
    """Whether no class of MMEngine's registries reads the value of a dict under a key."""
    if not node.place:  # variables of the config file are there as well
        return refusal(key, '', None, None)[0] is not None
    return str(key).endswith(_OPAQUE) or type_name(node.content) == 'Albu'


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
