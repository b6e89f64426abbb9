"""Let `torch.load(weights_only=True)` read the checkpoints of trainings, and nothing more.

MMEngine 0.10 saves its logs and metrics beside the weights: `HistoryBuffer` objects, NumPy arrays
and scalars, and four methods of `HistoryBuffer` that pickle spells `getattr(HistoryBuffer, 'min')`.
PyTorch refuses all of them by default, so resuming fails. A general `getattr` would open the door
to any code, so one that knows only those four methods takes its place.

onedl-mmengine has a list of its own, with the general `getattr`, takes its entries out of PyTorch's
list behind each file, ours too, and reads a file that is refused again with `weights_only=False`,
which runs what the file says. Its function gives way to PyTorch's.

Other projects' trainings (timm, DINO, iBOT, DeiT, MAE) save their arguments as a `Namespace`.
"""

import argparse
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import checkpoint
from numpy._core import multiarray

_METHODS = ('min', 'max', 'current', 'mean')
# The dtypes of losses, counts, flags and metrics
_DTYPES = ('float16', 'float32', 'float64', 'int32', 'int64', 'uint8', 'bool', 'str')


def allow_mmengine_checkpoints() -> None:
    """Let `torch.load(weights_only=True)` read the checkpoints of MMEngine's `Runner`.

    `weights_only` itself stays on: any other class or function in a file is still refused.
    """
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            argparse.Namespace,
            np.ndarray,
            np.dtype,
            *{type(np.dtype(name)) for name in _DTYPES},
            (_method_of_history_buffer, 'builtins.getattr'),
            *_under_both_names('_reconstruct', multiarray._reconstruct),
            *_under_both_names('scalar', multiarray.scalar),
        ]
    )
    if hasattr(checkpoint, '_safe_torch_load'):
        checkpoint._safe_torch_load = _load


def _load(file: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
    return torch.load(file, map_location=map_location, weights_only=weights_only is not False)


def _under_both_names(name: str, function: Callable[..., Any]) -> list[tuple[Any, str]]:
    """Files written with NumPy 1 name another module than those of NumPy 2."""
    return [(function, f'numpy.{core}.multiarray.{name}') for core in ('core', '_core')]


def _method_of_history_buffer(owner: Any, name: str) -> Callable[..., Any]:
    """Stand in for `getattr` in a checkpoint, for the four methods only."""
    if owner is not HistoryBuffer or name not in _METHODS:
        raise pickle.UnpicklingError(
            f'GLOBAL builtins.getattr of {owner!r}, {name!r} is not allowed'
        )
    return getattr(HistoryBuffer, name)
