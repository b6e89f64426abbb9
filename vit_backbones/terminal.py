"""What reaches the terminal: progress bars, and what libraries log, warn of and print."""

import contextlib
import io
import logging
import warnings
from collections.abc import Collection, Iterator
from typing import TypeVar

from mmengine.logging import MMLogger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextlib.contextmanager
def quiet_log() -> Iterator[None]:
    """Of what is logged, warnings alone."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('WARNING')
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def quiet_warnings() -> Iterator[None]:
    """Python warnings go to the log file, once there is one, not between the progress lines."""
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        logging.getLogger('py.warnings').handlers.clear()


@contextlib.contextmanager
def quiet_prints() -> Iterator[None]:
    """What a library prints, as pycocotools does, goes to the log file."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        yield
    if printed.getvalue():
        MMLogger.get_current_instance().info('\n' + printed.getvalue())


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Nothing of what libraries log and warn of."""
    disabled = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings(action='ignore'):
            yield
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def aloud() -> Iterator[None]:
    """Within `silence`, what libraries log is heard nevertheless."""
    disabled = logging.root.manager.disable
    logging.disable(logging.NOTSET)
    try:
        yield
    finally:
        logging.disable(disabled)


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
