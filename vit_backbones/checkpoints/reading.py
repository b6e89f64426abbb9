"""Reading weight files without ever running code from them."""

import pickle
import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

SUFFIXES = ('.pth', '.pt', '.bin', '.ckpt', '.safetensors')
_WRAPPERS = ('state_dict', 'model', 'teacher', 'model_state')


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint.

    Torch files are read with `weights_only=True`. Wrappers such as `{'state_dict': ...}` are
    opened; what is no tensor is left out.

    Args:
        path: A `.pth`, `.pt`, `.bin`, `.ckpt` or `.safetensors` file.

    Returns:
        Tensors on the CPU by their key in the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is a directory, empty, truncated, of another kind, needs code to be
            run, or holds no tensors.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f'checkpoint {str(path)!r} does not exist')
    if not path.is_file() or path.suffix not in SUFFIXES:
        raise ValueError(f'checkpoint {str(path)!r} is no {", ".join(SUFFIXES)} file')
    content = _load(path)
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    tensors = {}
    if isinstance(content, dict):
        tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f'checkpoint {str(path)!r} holds no tensors')
    return tensors


def _load(path: Path) -> object:
    try:
        if path.suffix == '.safetensors':
            return load_file(path)
        return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # damaged files make torch raise anything: IndexError, struct.error
        raise ValueError(
            f'checkpoint {str(path)!r} cannot be read: {_reason(error, path)}'
        ) from error


def _reason(error: Exception, path: Path) -> str:
    # torch's message names what the file wanted to import
    if wanted := re.search(r'GLOBAL (\S+)', str(error)):
        return f'it wants to run {wanted[1]}, which is refused; save its tensors alone'
    if isinstance(error, pickle.UnpicklingError):
        return 'it is no PyTorch file'
    line = str(error).strip().split('\n')[0] or type(error).__name__
    return f'{line}; is it complete? ({path.stat().st_size:,} bytes)'
