"""What a check finds: a line each, as an error that stops a training or as a warning."""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from mmengine.logging import print_log

from vit_backbones.config.explain import describe


class Finding(NamedTuple):
    """One mistake with its fix.

    Attributes:
        level: `'error'`: it would break or spoil the training; `'warning'`: it may.
        text: One line.
    """

    level: str
    text: str

    def __str__(self) -> str:
        return f'{self.level}: {self.text}'


def error(text: str) -> Finding:
    """What breaks or spoils a training."""
    return Finding('error', text)


def warning(text: str) -> Finding:
    """What may spoil it, or does under other conditions."""
    return Finding('warning', text)


def attempt(check: Callable[..., Any], *args: Any) -> Iterator[Finding]:
    """What a check that raises has found.

    Args:
        check: Called with `args`; any exception is an error found.
        *args: Its arguments.
    """
    try:
        check(*args)
    except Exception as raised:  # of the libraries as well, which have their own
        yield error(describe(raised))


def enforce(findings: Iterable[Finding]) -> None:
    """Log warnings, and refuse the first error.

    Raises:
        ValueError: If there is one; the message is its line.
    """
    for each in findings:
        if each.level == 'error':
            raise ValueError(each.text)
        print_log(each.text, logger='current', level=logging.WARNING)
