"""Classes in MMEngine's registries: by name, their arguments, and similar names."""

import contextlib
import difflib
import importlib
import inspect
from collections.abc import Callable
from typing import Any

from mmengine import registry
from mmengine.registry import Registry
from torch import nn


def arguments_of(taker: Callable[..., Any]) -> tuple[set[str], bool]:
    """Names that a class or function takes, `**kwargs` followed through the base classes.

    Also whether `**kwargs` go further than the signatures show.
    """
    functions = [taker]
    if inspect.isclass(taker):
        bases = [base for base in taker.__mro__ if base not in (object, nn.Module)]
        functions = [vars(base)['__init__'] for base in bases if '__init__' in vars(base)]
    names: set[str] = set()
    for function in functions:
        parameters = inspect.signature(function).parameters.values()
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return names - {'self'}, False
    return names - {'self'}, bool(functions)


def find_registered(kind: Any, scope: str | None = None) -> list[Callable[..., Any]]:
    """Each class or function that a `type` may mean, from all of MMEngine's registries.

    Names are as in a config: `'Mask2Former'`, looked up in `scope` first, or `'mmdet.Mask2Former'`.
    A class or function means itself.
    """
    if not isinstance(kind, str):
        return [kind] if callable(kind) else []
    if scope:
        with contextlib.suppress(ImportError):  # a scope that is not installed has no classes
            importlib.import_module(f'{scope}.registry')
    registries = [root.children.get(scope, root) for root in _root_registries()]
    found = [_looked_up(each, kind) for each in registries]
    return [each for each in found if each is not None]


def _looked_up(registry: Registry, kind: str) -> Callable[..., Any] | None:
    """A class or function by its name.

    MMEngine tries to import a module of a name that a registry lacks: a search of all folders.
    """
    if '.' in kind:
        return registry.get(kind)
    registry.import_from_location()
    line = [registry]
    while line[-1].parent is not None:
        line.append(line[-1].parent)
    return next((each.module_dict[kind] for each in line if kind in each.module_dict), None)


def close_arguments(kind: str, name: str) -> list[str]:
    """Arguments of the class `kind` that are similar to `name`, which it does not take."""
    takers = [each.module_dict.get(kind) for root in _root_registries() for each in _family(root)]
    names = {each for taker in takers if taker for each in arguments_of(taker)[0]}
    return difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.8)


def close_names(name: str, registry_name: str) -> list[str]:
    """Registered names similar to one that is not, those of all imported packages included.

    The registry is named as MMEngine's root registry is, such as `'model'`.
    """
    known = {each for registry in _registries(registry_name) for each in registry.module_dict}
    return difflib.get_close_matches(name.split('.')[-1], sorted(known), n=3)


def scopes_of(name: str, registry_name: str) -> list[str]:
    """Scopes of the imported packages in which a name is registered."""
    return [each.scope for each in _registries(registry_name) if name in each.module_dict]


def _registries(name: str) -> list[Registry]:
    return [each for root in _root_registries() if root.name == name for each in _family(root)]


def _family(root: Registry) -> list[Registry]:
    """A registry and those of other packages below it."""
    return [root, *root.children.values()]


def _root_registries() -> list[Registry]:
    return [each for each in vars(registry).values() if isinstance(each, Registry)]
