"""Reading weight files without ever running code from them."""

import pickle
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
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
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path):
            reason = f'it needs code to be run: {_wanted(error)}'
        else:
            reason = 'it is no PyTorch file'
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).strip().split('\n')[0] or type(error).__name__
    raise ValueError(
        f'checkpoint {str(path)!r} cannot be read ({reason}); is it complete? ({path.stat().st_size:,} bytes)'
    )


def _wanted(error: pickle.UnpicklingError) -> str:
    """The line of torch's message that names what the file wanted to import."""
    lines = str(error).split('\n')
    return next((line.strip() for line in lines if 'GLOBAL' in line), lines[0])
