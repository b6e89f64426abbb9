"""Output files that are written whole or not at all."""

import os
import tempfile
from pathlib import Path


def write_whole(path: str | Path, content: bytes) -> Path:
    """Write a file so that nobody ever sees half of it.

    Args:
        path: File to write; missing folders are made, an old file is replaced, and a device such
            as /dev/stdout is written to.
        content: The whole file.

    Raises:
        OSError: If it cannot be written; it names a file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
            return path
        draft.write_bytes(content)
        os.replace(draft, path)
    except OSError as error:  # a full disk does not name the file
        error.filename = error.filename or str(path)
        raise
    finally:
        draft.unlink(missing_ok=True)
    return path


def check_writable(path: str | Path, *, folder: bool = False) -> None:
    """Check before long work that its results can be written.

    Args:
        path: File to write, or the folder of several; neither need exist yet.
        folder: Whether it is a folder.

    Raises:
        ValueError: If it is the other kind, or if its folder cannot be written to.
    """
    path = Path(path)
    if path.exists() and not (path.is_dir() if folder else path.is_file()):
        raise ValueError(f'{path} cannot be written: it is no {"folder" if folder else "file"}')
    whole = path.absolute()
    place = next(each for each in (whole, *whole.parents)[not folder :] if each.exists())
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise ValueError(f'{path} cannot be written: {error.strerror}: {place}') from None
