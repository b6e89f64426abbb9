"""What makes a GPU wait, counted on any device: operators started, and waits for their results."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import ExitStack
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


class Counting:
    """Counts while it is entered; `so_far` may be read at any time.

    Args:
        hosted: Tensors that lie on the host whatever the device, such as an optimizer's numbers of
            steps; reading them is no wait.
    """

    def __init__(self, hosted: Iterable[Tensor] = ()) -> None:
        self._operators = _Operators({each.data_ptr() for each in hosted})
        self._calls, self._entered = _Calls(), ExitStack()

    def __enter__(self) -> 'Counting':
        """Begin to count."""
        self._entered.enter_context(self._operators)
        self._entered.enter_context(self._calls)
        return self

    def __exit__(self, *error: object) -> None:
        """End it."""
        self._entered.close()

    @property
    def so_far(self) -> Counts:
        """What was counted until now."""
        return Counts(self._operators.count, self._operators.waits + self._calls.waits)


def counted(step: Callable[[], object]) -> Counts:
    """Run `step` once and count; on a CPU it counts the waits that a GPU would have.

    Compiled code counts as nothing, and copies by `.to(device)` are not seen on a CPU, apart from
    `.to('cpu')` itself.
    """
    with Counting() as counting:
        step()
    return counting.so_far


class _Operators(TorchDispatchMode):
    def __init__(self, hosted: Set[int]) -> None:
        super().__init__()
        self.count, self.waits, self._hosted = 0, Counter[str](), hosted

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
            self.waits[name] += not self._hosted or args[0].data_ptr() not in self._hosted
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
