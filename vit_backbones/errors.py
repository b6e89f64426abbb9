"""Words of messages; optional packages, with the fix when one is missing."""

import importlib
import itertools
from collections.abc import Iterable
from types import ModuleType
from typing import Any


def require(
    module: str, purpose: str, package: str, *, extra: str = 'tools', instead: str = ''
) -> ModuleType:
    """Import a module of an optional package; the error names how to install it.

    Args:
        module: Its name in Python.
        purpose: The feature that needs it.
        package: Its name for people.
        extra: Our extra that installs it.
        instead: Advice for going on without it.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        fix = f'pip install vit_backbones[{extra}]' + (f'; or {instead}' if instead else '')
        raise ImportError(f'{purpose} needs {package}: {fix}') from None


def one_line(error: BaseException) -> str:
    """The text of an exception in one line, or its type where it has none."""
    return ' '.join(str(error).split()) or type(error).__name__


def shown(text: str) -> str:
    """A text of a file or a shell in one line."""
    return text if text.isprintable() else repr(text)


def counted(number: int, noun: str) -> str:
    """`1 image`, `2 epochs`, `3 classes`, `4 batches`."""
    plural = 'es' if noun.endswith(('s', 'tch')) else 's'
    return f'{number} {noun}{plural * (number != 1)}'


def some(things: Iterable[Any], most: int = 3) -> str:
    """The first few, `a, b, c, ...`, or `none`."""
    first = list(map(str, itertools.islice(things, most + 1)))
    return ', '.join(first[:most]) + ', ...' * (len(first) > most) or 'none'
