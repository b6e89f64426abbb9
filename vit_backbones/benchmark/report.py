"""Where and how something was measured, in a line for people and in JSON."""

import contextlib
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import timm
import torch

from vit_backbones import __version__
from vit_backbones.files import write_whole
from vit_backbones.training.record import cpu_name


@contextlib.contextmanager
def quiet(threads: int | None = None) -> Iterator[None]:
    """Without what libraries log and warn of.

    Args:
        threads: Of the CPU meanwhile, as many as before by default.
    """
    disabled, before = logging.root.manager.disable, torch.get_num_threads()
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(threads or before)
    try:
        with warnings.catch_warnings(action='ignore'):
            yield
    finally:
        torch.set_num_threads(before)
        logging.disable(disabled)


def choose_device(name: str | None) -> torch.device:
    """The device that a command line asks for, by default the GPU if there is one.

    Raises:
        ValueError: For a GPU that is not there.
        RuntimeError: For what is no device of PyTorch.
    """
    device = torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))
    if device.type == 'cuda' and not torch.cuda.is_available():
        raise ValueError(f'--device {name}: PyTorch sees no GPU here; leave it out for the CPU')
    return device


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Keys `date`, `device`, `threads` and `versions`."""
    on_gpu = device.type == 'cuda'
    return dict(
        date=datetime.now(UTC).date().isoformat(),
        device=torch.cuda.get_device_name(device) if on_gpu else cpu_name(),
        threads=torch.get_num_threads(),
        versions=dict(vit_backbones=__version__, torch=torch.__version__, timm=timm.__version__),
    )


def heading(environment: Mapping[str, Any]) -> str:
    """The same in a line."""
    versions = ', '.join(f'{name} {version}' for name, version in environment['versions'].items())
    devices = ', '.join(environment[key] for key in ('device', 'gpu') if key in environment)
    return f'{devices}, {environment["threads"]} threads, {versions}'


def table_row(cells: list[str]) -> str:
    """A row of Markdown."""
    return f'| {" | ".join(cells)} |'


def check_output(path: Path) -> None:
    """Refuse a place where nothing can be written, before the long work.

    Raises:
        ValueError: If it is a folder or a device, or if its folder cannot be written to.
    """
    folder = next(each for each in path.absolute().parents if each.exists())
    if path.exists() and not path.is_file():
        raise ValueError(f'{path} is no file to write to')
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f'{path}: {folder} cannot be written to')


def write_json(path: Path, **content: Any) -> None:
    """Write a record whole.

    Args:
        path: Of the file.
        **content: Keys of the record.
    """
    write_whole(path, (json.dumps(content, indent=1, allow_nan=False) + '\n').encode())
    print(f'wrote {path}')
