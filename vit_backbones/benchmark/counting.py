"""What makes a GPU wait, counted on any device: operators started, and waits for their results."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# Kernels whose result has a size, or is a number, that Python waits for
_WAITING = {
    '_local_scalar_dense',
    '_unique2',
    'equal',
    'masked_select',
    'nonzero',
    'unique_consecutive',
    'unique_dim',
}
_INDEXING = ('index', 'index_put', 'index_put_')  # by booleans: `nonzero` within
_TO_HOST = ('cpu', 'numpy', 'tolist', '__array__')
_FROM_HOST = ('as_tensor', 'new_tensor', 'tensor', 'lift_fresh.default')  # the last: from_numpy


class Counts(NamedTuple):
    """What one call did.

    Attributes:
        operators: Kernels and views that PyTorch dispatched, the backward pass included.
        waits: How often, by name, the host waits for the device: numbers and shapes that depend
            on values, copies to the host (`_TO_HOST`) and of Python's data to a tensor
            (`_FROM_HOST`), which on CUDA is a copy that is waited for.
    """

    operators: int
    waits: Counter[str]

    @property
    def synchronisations(self) -> int:
        """All waits."""
        return self.waits.total()


def counted(step: Callable[[], object]) -> Counts:
    """Run `step` once and count; on a CPU it counts the waits that a GPU would have.

    Compiled code counts as nothing, and copies by `.to(device)` are not seen on a CPU, apart from
    `.to('cpu')` itself.
    """
    operators, calls = _Operators(), _Calls()
    with operators, calls:
        step()
    return Counts(operators.count, operators.waits + calls.waits)


class _Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count, self.waits = 0, Counter[str]()

    def __torch_dispatch__(
        self,
        func: Any,
        types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = func.overloadpacket.__name__
        self.count += 1
        if name in _WAITING or (name in _INDEXING and any(map(_chooses, args[1]))):
            self.waits[name] += 1
        if name == 'repeat_interleave' and not (kwargs or {}).get('output_size'):
            self.waits[name] += 1
        return func(*args, **(kwargs or {}))


class _Calls(TorchFunctionMode):
    """Sees what never reaches the kernels, since on a CPU nothing is copied."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = Counter[str]()

    def __torch_function__(
        self,
        func: Any,
        types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, '__name__', '')
        if name in _TO_HOST or name in _FROM_HOST or (name == 'to' and 'cpu' in args[1:]):
            self.waits[name] += 1
        return func(*args, **(kwargs or {}))


def _chooses(index: Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)
