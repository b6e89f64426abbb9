"""Read weight files without ever running code from them."""

import json
import pickle
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Size, Tensor

from vit_backbones.checkpoints.averaging import noted, sections_by_choice
from vit_backbones.checkpoints.fitting import GRID_KEY, LAYOUT_KEY
from vit_backbones.checkpoints.origin import encode
from vit_backbones.errors import shown, some

SUFFIXES = ('.pth', '.pt', '.tar', '.bin', '.ckpt', '.safetensors', '.npz')
# What a file may expand to: this, and more where it has a share of it. Compressed zeros have less.
_ROOM, _TIMES = 2 * 2**30, 100
_NAMED = {'.safetensors': 'safetensors file', '.npz': 'NumPy archive'}


class _ExpansionError(ValueError):
    """A file is far smaller than its content."""


class Content(NamedTuple):
    """The tensors of a checkpoint by key, and which of its copies of a model they are."""

    tensors: dict[str, Tensor]
    copy: str | None = None  # in a few words, if it holds several


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint of one of `SUFFIXES` to the CPU, by their key in the file.

    Torch files (`.pth.tar` is one too) are read with `weights_only=True`, NumPy archives with
    `allow_pickle=False`.
    Sections such as `{'state_dict': ...}` are opened, of several copies of a model the one that
    its authors evaluate (`checkpoints.averaging`); values other than tensors are left out.

    Raises:
        TypeError: If `path` is no path.
        FileNotFoundError: If there is no such file.
        ValueError: If it is of another kind, damaged, needs code to be run, holds no tensors, or
            expands to more than 2 GiB and a hundred times its size.
    """
    return read_content(path).tensors


def read_content(path: str | Path, device: str = 'cpu') -> Content:
    """As `read_checkpoint`, with the copy taken; without values on the device `'meta'`."""
    content, copies = _opened(_load(path, device))
    tensors = _tensors(content)
    if not tensors:
        held = content if isinstance(content, dict) else {}
        inside = [repr(key) for key, section in held.items() if _tensors(section)]
        where = f' but in {some(inside)}: save that section as a file of its own' if inside else ''
        raise ValueError(f'checkpoint {str(path)!r} holds no tensors{where}')
    for name, tensor in tensors.items():
        if reason := _no_values(tensor, device):
            raise ValueError(f'checkpoint {str(path)!r} holds {shown(name)} {reason}')
    return Content(tensors, '; '.join(copies) or None)


def _tensors(content: object) -> dict[str, Tensor]:
    found = content.items() if isinstance(content, dict) else ()
    return {k: each for k, each in found if isinstance(k, str) and isinstance(each, Tensor)}


def _no_values(tensor: Tensor, device: str) -> str:
    """Why a tensor has no values that can be copied to a model; '' if it has."""
    if tensor.is_meta and device != 'meta':
        return 'without values: it was saved from the meta device'
    if tensor.layout != torch.strided or tensor.is_quantized:
        return 'as a sparse or quantised tensor: save it dense, as floats'
    return ''


def names(path: str | Path) -> dict[str, Size]:
    """Names and shapes of the tensors of a checkpoint, read without their values.

    Only an `.npz` file is read whole. Raises as `read_checkpoint` does.
    """
    return {name: tensor.shape for name, tensor in read_content(path, 'meta').tensors.items()}


def sections(path: str | Path) -> set[str]:
    """Top-level keys of a checkpoint, such as `'optimizer'`, read like `names`."""
    return set(contents(path, 'meta'))


def contents(path: str | Path, device: str = 'cpu') -> dict[str, Any]:
    """A checkpoint by its top-level keys, its wrappers closed.

    Values of its tensors are read where they are used, or never with `device='meta'`. Raises as
    `read_checkpoint` does.
    """
    content = _load(path, device, mapped=True)
    return content if isinstance(content, dict) else {}


def _opened(content: object) -> tuple[object, list[str]]:
    """The innermost section that holds weights, and the choices on the way to it."""
    choices: list[str] = []
    while isinstance(content, dict):
        copies = sections_by_choice(content)
        if not copies:
            break
        content = content[copies[0]]
        choices += filter(None, [noted(copies)])
    return content, choices


def _load(path: str | Path, device: str, *, mapped: bool = False) -> object:
    """The content of a file, its tensors on the CPU, or without values on the meta device.

    Those that are `mapped` stay in the file where it allows that.
    """
    if not isinstance(path, str | Path):
        raise TypeError(f'checkpoint must be the path of a file, got {path!r}')
    if '://' in str(path):
        raise ValueError(f'checkpoint {str(path)!r} is no local file: download it first')
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f'checkpoint {str(path)!r} does not exist')
    if path.is_dir():
        raise ValueError(f'checkpoint {str(path)!r} is a folder: name a file in it')
    if not path.is_file() or path.suffix not in SUFFIXES:
        raise ValueError(f'checkpoint {str(path)!r} is no {", ".join(SUFFIXES)} file')
    try:
        if path.suffix == '.safetensors':
            return _load_safetensors(path, device)
        if path.suffix == '.npz':
            return _load_npz(path)
        return _load_torch(path, device, mapped)
    except Exception as error:  # damaged files make torch raise anything: IndexError, struct.error
        raise ValueError(
            f'checkpoint {str(path)!r} cannot be read: {_reason(error, path)}'
        ) from error


def _load_torch(path: Path, device: str, mapped: bool) -> object:
    if is_zip := zipfile.is_zipfile(path):
        _check_archive(path)
    # PyTorch 2.9 reads the values for the meta device too, unless the file is mapped
    mapped = (mapped or device == 'meta') and is_zip
    content = torch.load(path, map_location=device, weights_only=True, mmap=mapped or None)
    # A view may show one value a billion times
    _check_expansion(path, sum(t.numel() * t.element_size() for t in _nested(content)))
    return content


def _nested(content: object) -> Iterator[Tensor]:
    """The tensors in dicts and lists, which may hold themselves."""
    left, seen = [content], set()
    while left:
        each = left.pop()
        if isinstance(each, Tensor):
            yield each
        elif isinstance(each, (dict, list, tuple)) and id(each) not in seen:
            seen.add(id(each))
            left += each.values() if isinstance(each, dict) else each


def _check_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        _check_expansion(path, sum(entry.file_size for entry in archive.infolist()))


def _check_expansion(path: Path, promised: int) -> None:
    size = path.stat().st_size
    if promised > max(_ROOM, _TIMES * size):
        raise _ExpansionError(
            f'it expands from {size:,} bytes to {promised:,}, more than {_TIMES} times as many, as '
            f'files do that are meant to fill the memory; if you trust it, save it uncompressed'
        )


def _load_safetensors(path: Path, device: str) -> dict[str, Tensor]:
    """The tensors, with the records that `tools/convert_checkpoint.py` adds."""
    with safe_open(path, 'pt') as file:
        noted = file.metadata() or {}
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}
    if device == 'meta':
        tensors = {name: torch.empty(shape, device=device) for name, shape in shapes.items()}
    else:
        tensors = load_file(path)
    if GRID_KEY in noted:
        tensors[GRID_KEY] = torch.tensor(json.loads(noted[GRID_KEY]))
    if LAYOUT_KEY in noted:
        tensors[LAYOUT_KEY] = encode(noted[LAYOUT_KEY])
    return tensors


def _load_npz(path: Path) -> dict[str, Tensor | None]:
    if not zipfile.is_zipfile(path):  # NumPy would go on to suspect a pickle
        raise ValueError('it is no NumPy archive')
    _check_archive(path)
    with np.load(path, allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    if not all(isinstance(each, np.ndarray) for each in found.values()):
        raise ValueError('it is no NumPy archive')
    return {name: _tensor(each) for name, each in found.items()}


def _tensor(array: np.ndarray) -> Tensor | None:
    """The array as a tensor, `None` for text; NumPy reads bfloat16 as two bytes."""
    if array.dtype == np.dtype('V2'):
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return None if array.dtype.kind in 'SU' else torch.from_numpy(array)


def _reason(error: Exception, path: Path) -> str:
    # torch's message names the import that the file wants
    if wanted := re.search(r'GLOBAL (\S+)', str(error)):
        return f'it wants to run {wanted[1]}, which is refused; save only its tensors'
    with path.open('rb') as file:
        start = file.read(64)
    if start.startswith(b'version https://git-lfs'):
        return 'it is a pointer of Git LFS, not the file: git lfs pull'
    if start and start.isascii() and start.decode('ascii').isprintable():
        return 'it is text, no weights'
    if other := _other_kind(path, start):
        return f'it is {other}'
    if isinstance(error, _ExpansionError):
        return str(error)
    if isinstance(error, pickle.UnpicklingError):
        return 'it is no PyTorch file'
    if 'allow_pickle' in str(error):
        return 'it holds pickled objects, which are refused; save only its arrays'
    line = str(error).strip().split('\n')[0] or type(error).__name__
    return f'{line}; is it complete? ({path.stat().st_size:,} bytes)'


def _other_kind(path: Path, start: bytes) -> str:
    """What a file is whose suffix names another kind, with the fix; empty if it is none known."""
    if start[8:9] == b'{':
        return '' if path.suffix == '.safetensors' else 'a safetensors file: name it so'
    if tarfile.is_tarfile(path):
        return 'of the first PyTorch (a tar), which runs code: convert it where you trust it'
    is_zip = zipfile.is_zipfile(path)
    members = zipfile.ZipFile(path).namelist() if is_zip else []
    is_torch = start[:1] == b'\x80' or any(name.endswith('/data.pkl') for name in members)
    if is_torch and (named := _NAMED.get(path.suffix)):
        return f'no {named} but a pickle: name it .pth'
    if is_zip and not is_torch and path.suffix != '.npz':
        return 'a zip, no weights; if it holds arrays of NumPy, name it .npz'
    return ''
