"""Where and how something was measured, in a line for people and in JSON."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import timm
import torch

from vit_backbones import __version__
from vit_backbones.files import write_whole
from vit_backbones.terminal import silence
from vit_backbones.training.record_hook import cpu_name


@contextlib.contextmanager
def quiet(threads: int | None = None) -> Iterator[None]:
    """Without what libraries log and warn of.

    Args:
        threads: Of the CPU meanwhile, as many as before by default.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with silence():
            yield
    finally:
        torch.set_num_threads(before)


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


def write_json(path: Path, **content: Any) -> None:
    """Write a record whole.

    Args:
        path: Of the file.
        **content: Keys of the record.
    """
    write_whole(path, (json.dumps(content, indent=1, allow_nan=False) + '\n').encode())
    print(f'wrote {path}')
