"""Keeping what libraries log, warn of and print away from the terminal."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

from mmengine.logging import MMLogger


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
