"""Output files that are written whole or not at all."""

import os
from pathlib import Path


def write_whole(path: str | Path, content: bytes) -> Path:
    """Write a file so that nobody ever sees half of it.

    Args:
        path: File to write; missing folders are made, an old file is replaced.
        content: What it shall hold.

    Returns:
        `path` as a path.

    Raises:
        OSError: If it cannot be written; it names a file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        draft.write_bytes(content)
        os.replace(draft, path)
    except OSError as error:  # a full disk does not tell where
        error.filename = error.filename or str(path)
        raise
    finally:
        draft.unlink(missing_ok=True)
    return path
