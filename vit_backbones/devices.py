"""Where models run, and in which precision."""

import numpy as np
import torch
from torch import Tensor

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


def choose_device(name: str | None) -> torch.device:
    """The device of a name, by default the GPU if there is one; a `ValueError` if it is missing."""
    try:
        device = torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))
        if device.type == 'cuda' and not torch.cuda.is_available():
            raise ValueError(f'device={name}: PyTorch finds no GPU here; leave it out for the CPU')
        torch.empty(1, device=device)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f'device={name}: {str(error).splitlines()[0]}') from None
    return device


def upload(array: np.ndarray, device: torch.device) -> Tensor:
    """The array on a device; a GPU's queue of work is not waited for."""
    tensor = torch.from_numpy(array)
    if device.type == 'cuda':
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def amp_dtype() -> str:
    """The type of mixed precision here: bfloat16, on a GPU that lacks it float16."""
    has_it = not torch.cuda.is_available() or torch.cuda.is_bf16_supported(
        including_emulation=False
    )
    return 'bfloat16' if has_it else 'float16'
