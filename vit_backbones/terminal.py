"""Output on the terminal: progress bars, and the logs, warnings and prints of libraries."""

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Collection, Iterator
from typing import TypeVar

from mmengine.logging import MMLogger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_T = TypeVar('_T')


@contextlib.contextmanager
def quiet_log() -> Iterator[None]:
    """Log only warnings."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('WARNING')
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def quiet_warnings() -> Iterator[None]:
    """Send Python warnings to the log file, once there is one, not between the progress lines."""
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        logging.getLogger('py.warnings').handlers.clear()


@contextlib.contextmanager
def quiet_prints() -> Iterator[None]:
    """Send the prints of a library, such as pycocotools, to the log file."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        yield
    if printed.getvalue():
        MMLogger.get_current_instance().info('\n' + printed.getvalue())


@contextlib.contextmanager
def quiet_stream(number: int) -> Iterator[None]:
    """Hide what libraries in C++ write to the output (1) or to the errors (2)."""
    (sys.stdout if number == 1 else sys.stderr).flush()
    kept, nowhere = os.dup(number), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    try:
        yield
    finally:
        os.dup2(kept, number)
        os.close(kept)
        os.close(nowhere)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Hide the logs and warnings of libraries."""
    with _hidden(logging.CRITICAL), warnings.catch_warnings(action='ignore'):
        yield


def aloud() -> contextlib.AbstractContextManager[None]:
    """Let the logs of libraries through `silence`."""
    return _hidden(logging.NOTSET)


@contextlib.contextmanager
def _hidden(level: int) -> Iterator[None]:
    """Hide logs up to a level."""
    disabled = logging.root.manager.disable
    _disable(level)
    try:
        yield
    finally:
        _disable(disabled)


def _disable(level: int) -> None:
    """Disable logs, MMEngine's too: `logging` does not know its loggers, which cache levels."""
    logging.disable(level)
    for logger in MMLogger._instance_dict.values():
        logger._cache.clear()


def progress(*, silent: bool = False) -> Progress:
    """A bar on the error stream if that is a terminal; it disappears when the work is done.

    With `silent`, for all processes but the first, its console prints nothing either.
    """
    console = Console(stderr=True, quiet=silent)
    text, count = TextColumn('{task.description}'), MofNCompleteColumn()
    columns = text, BarColumn(), count, TimeRemainingColumn()
    hidden = silent or not console.is_terminal
    return Progress(*columns, console=console, transient=True, disable=hidden)


_tracked: list[Progress] = []  # the bars of `track` that go on


def track(items: Collection[_T], doing: str) -> Iterator[_T]:
    """Go through items beside a bar that names the work (`doing`)."""
    with progress() as bar:
        _tracked.append(bar)
        try:
            yield from bar.track(items, description=doing)
        finally:
            _tracked.remove(bar)


def track_parts(parts: Collection[_T], doing: str) -> Iterator[_T]:
    """Go through the parts of an item that `track` is at, beside a second bar if they are many.

    Without `track` around it there is none.
    """
    if not _tracked or len(parts) < 2:
        yield from parts
        return
    bar = _tracked[-1]
    task = bar.add_task(doing, total=len(parts))
    try:
        yield from bar.track(parts, task_id=task)
    finally:
        bar.remove_task(task)
