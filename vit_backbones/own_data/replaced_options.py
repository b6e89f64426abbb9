"""Explicit changes of a config against what own data make of it."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config

_MISSING = object()


def asked_values(cfg: Config, options: Sequence[str]) -> dict[str, Any]:
    """The values of a config that `key=value` options have set, by their dotted places."""
    values = {}
    for option in options:
        key = option.partition('=')[0]
        values |= dict(_leaves(key, copy.deepcopy(_value_at(cfg, key))))
    return values


def check_asked(cfg: Config, asked: dict[str, Any]) -> None:
    """Refuse an option that own data have replaced by another value.

    Raises:
        ValueError: It names the place and both values.
    """
    for key, value in asked.items():
        given = _value_at(cfg, key)
        if _plain(given) != _plain(value):
            got = 'have no such key' if given is _MISSING else f'give {_plain(given)!r}'
            rest = key.partition('_')[2]
            raise ValueError(
                f'options={key}: {_plain(value)!r} is asked for, and own data {got}: leave this '
                f'option out' + f', or set val_{rest}' * key.startswith('test_')
            )


def _value_at(cfg: Config, key: str) -> Any:
    node = cfg._cfg_dict
    for part in key.split('.'):
        if isinstance(node, (list, tuple)) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, dict) and part in node:
            node = node[part]
        else:
            return _MISSING
    return node


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """(place, value) of all that is not a dict below a place."""
    if isinstance(value, dict) and value:
        for name, each in value.items():
            yield from _leaves(f'{key}.{name}', each)
    else:
        yield key, value


def _plain(value: Any) -> Any:
    """A value with lists for tuples, which mean the same in configs."""
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value
