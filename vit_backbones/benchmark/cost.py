"""What a step costs beside time: memory, FLOPs, and the least time its arithmetic takes."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import (
    FlopCounterMode,
    flop_registry,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from vit_backbones.benchmark.timing import Step

_aten = torch.ops.aten


def _attention(q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: Any, **__: Any) -> int:
    return sdpa_flop_count(q, k, v)


def _attention_backward(out: Sequence[int], *qkv: Any, **_: Any) -> int:
    return sdpa_backward_flop_count(out, *qkv[:3])


# PyTorch counts the attention of CUDA's kernels alone
_ON_CPU = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


def peak_memory(step: Step, device: torch.device) -> int:
    """Bytes that PyTorch allocates during a step, at the peak, beyond what it held before.

    On CUDA by `max_memory_allocated`, on a CPU by the profiler: tensors and the kernels' own
    buffers from PyTorch's allocator, without the libraries and without what malloc keeps back.
    """
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # it complains of machines without a GPU
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profiler:
        step()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'trace.json')
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())['traceEvents']
    return max((e['args']['Total Allocated'] for e in events if e['name'] == '[memory]'), default=0)


def flops_and_floor(step: Step) -> tuple[int, Step]:
    """What the arithmetic of a step is, and that arithmetic alone.

    Args:
        step: Run once, not in inference mode, which hides the kernels.

    Returns:
        FLOPs of its matrix products, convolutions and attentions, a multiply-add counting two;
        and a step of these calls alone, with the same shapes, strides and types.
    """
    calls = _Calls()
    with FlopCounterMode(display=False, custom_mapping=_ON_CPU) as counter, calls:
        step()
    return counter.get_total_flops(), calls.replay


class _Calls(TorchDispatchMode):
    """Keeps the calls that have FLOPs.

    An argument is kept once a kernel, place, shape and type, so that a floor needs little memory;
    parameters are all kept, as a model reads each one from memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kernels = flop_registry.keys() | _ON_CPU.keys()
        self._calls: list[tuple[Any, Sequence[Any], Mapping[str, Any]]] = []
        self._kept: dict[Any, Tensor] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in self._kernels:
            places = enumerate(args)
            kept = [
                tree_map_only(Tensor, lambda t, i=i: self._keep(func, i, t), a) for i, a in places
            ]
            named = {
                k: tree_map_only(Tensor, lambda t, k=k: self._keep(func, k, t), a)
                for k, a in (kwargs or {}).items()
            }
            self._calls.append((func, kept, named))
        return out

    def _keep(self, func: Any, place: int | str, tensor: Tensor) -> Tensor:
        base = tensor._base if tensor._base is not None else tensor
        if isinstance(base, torch.nn.Parameter):
            return tensor.detach()
        key = func, place, tensor.shape, tensor.stride(), tensor.dtype
        return self._kept.setdefault(key, tensor.detach())

    def replay(self) -> None:
        """Carry out the calls, and nothing else."""
        with torch.inference_mode():
            for func, args, kwargs in self._calls:
                func(*args, **kwargs)
