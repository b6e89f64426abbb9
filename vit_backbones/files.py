"""Output files that are written whole or not at all, and JSON that may hold anything."""

import hashlib
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

_LONGEST, _HEAD = 200, 180  # bytes of a name


def write_whole(path: str | Path, content: bytes) -> Path:
    """Write a file so that nobody ever sees half of it; an `OSError` names a file.

    Missing folders are made, an old file is replaced, a device such as /dev/stdout is written to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # short, as the name may be as long as the disk allows
    draft = path.with_name(f'.{mark(path.name)}.{mark(platform.node())[:6]}.{os.getpid()}')
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


def shortened(name: str) -> str:
    """A file's name with room for what is put before and behind it: disks allow 255 bytes."""
    whole = os.fsencode(name)
    return name if len(whole) <= _LONGEST else whole[:_HEAD].decode(errors='ignore') + mark(name)


def mark(text: str) -> str:
    """16 characters that other texts do not get."""
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:16]


def parsed(text: str | bytes) -> Any:
    """The content of a JSON text; a `ValueError` without a name if it is none."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError('it is nested too deep') from None


def json_of(text: str | bytes, name: object, kind: type = object) -> Any:
    """The content of a JSON text; a `ValueError` with `name` if it is none, or of another type."""
    try:
        content = parsed(text)
    except ValueError as error:
        raise ValueError(f'{name} is no JSON: {error}') from error
    if not isinstance(content, kind):
        raise ValueError(f'{name} holds a {type(content).__name__}, not a {kind.__name__}')
    return content


def check_writable(path: str | Path, *, folder: bool = False) -> None:
    """Check before long work that a file, or a folder of files, can be written.

    Raises:
        ValueError: If the path is of the other kind, or if its folder cannot be written to.
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


def short_path(path: str | Path) -> str:
    """Relative to the current folder where the path lies in it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith('..') else relative
