"""A bar for long work: on the terminal alone, beside what a command prints."""

from collections.abc import Collection, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_T = TypeVar('_T')


def progress(*, silent: bool = False) -> Progress:
    """A bar on the error stream if that is a terminal, which is gone when the work is done.

    Args:
        silent: Show nothing, as in all processes but the first; its console prints nothing either.
    """
    console = Console(stderr=True, quiet=silent)
    text, count = TextColumn('{task.description}'), MofNCompleteColumn()
    columns = text, BarColumn(), count, TimeRemainingColumn()
    hidden = silent or not console.is_terminal
    return Progress(*columns, console=console, transient=True, disable=hidden)


def track(items: Collection[_T], doing: str) -> Iterator[_T]:
    """Go through items with a bar.

    Args:
        items: Any.
        doing: What happens to them, beside the bar.
    """
    with progress() as bar:
        yield from bar.track(items, description=doing)
