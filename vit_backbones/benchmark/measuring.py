"""Time, memory and FLOPs of models that take turns in one run."""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
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

from vit_backbones.benchmark.subjects import Subject

Step = Callable[[], Any]
WARM_UPS = 2  # rounds that do not count: caches, memory pools, kernel choices, compilation


# PyTorch itself counts only the attention of CUDA's kernels
_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
_ON_CPU: dict[Any, Callable[..., int]] = {
    _flash: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    _flash_backward: lambda out, q, k, v, *_, **__: sdpa_backward_flop_count(out, q, k, v),
}


def measured(subject: Subject, peers: Mapping[str, Subject], repeats: int) -> dict[str, Any]:
    """Measure a model beside its floor and its peers.

    Gives `parameters`, `flops`, `latency_ms`, `images_per_second`, `peak_memory_mib`, `floor_ms`,
    `times_floor`, and `peers` with `latency_ms`, `peak_memory_mib` and `times_ours` of each.
    """
    flops, floor = flops_and_floor(subject.visible_step)
    steps = {'ours': subject.step, 'floor': floor} | {name: p.step for name, p in peers.items()}
    times = interleaved(steps, repeats, subject.setting.device)
    return dict(
        parameters=subject.parameters,
        flops=flops,
        latency_ms=times['ours'],
        images_per_second=1e3 * subject.setting.batch_size / times['ours'],
        peak_memory_mib=memory_of(subject),
        floor_ms=times['floor'],
        times_floor=times['ours'] / times['floor'],
        peers={
            name: dict(
                latency_ms=times[name],
                peak_memory_mib=memory_of(peer),
                times_ours=times[name] / times['ours'],
            )
            for name, peer in peers.items()
        },
    )


def interleaved(
    steps: Mapping[str, Step], repeats: int, device: torch.device, *, warm_ups: int = WARM_UPS
) -> dict[str, float]:
    """Time steps in turns (A B C A B C ...), so that a slow moment of the machine slows them all.

    Gives the median of `repeats` rounds of each in milliseconds; `warm_ups` before do not count.
    On CUDA its events measure, and each step is waited for.
    """
    clock = _events if device.type == 'cuda' else _wall
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(warm_ups + repeats):
        for name, step in steps.items():
            times[name].append(clock(step))
    return {name: statistics.median(each[warm_ups:]) for name, each in times.items()}


def _wall(step: Step) -> float:
    start = time.perf_counter()
    step()
    return 1e3 * (time.perf_counter() - start)


def _events(step: Step) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    step()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def memory_of(subject: Subject) -> float:
    """MiB that a step takes at its peak: gradients included, weights and images left out."""
    subject.model.zero_grad(set_to_none=True)
    return peak_memory(subject.step, subject.setting.device) / 2**20


def peak_memory(step: Step, device: torch.device) -> int:
    """Bytes that PyTorch allocates during a step, at the peak, beyond what it held before.

    CUDA gives `max_memory_allocated`, a CPU the profiler's count: tensors and the kernels' own
    buffers from PyTorch's allocator, without the libraries and memory that malloc keeps back.
    """
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    changes = [each['args'] for each in _memory_changes(step)]
    if not changes:
        return 0
    # The total keeps blocks of earlier steps that were freed while nothing was profiled
    before = changes[0]['Total Allocated'] - changes[0]['Bytes']
    return max(each['Total Allocated'] for each in changes) - before


def _memory_changes(step: Step) -> list[dict[str, Any]]:
    """The profiler's events of the CPU's memory in a step, in their order."""
    return [each for each in traced(step, profile_memory=True) if each['name'] == '[memory]']


def traced(step: Step, *others: ProfilerActivity, **options: Any) -> list[dict[str, Any]]:
    """The profiler's events of a step on the CPU and on `others`, in their order.

    They are those of Chrome's trace viewer: `name`, `cat`, `ts` and `dur` in microseconds, `args`.
    """
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # it complains of machines without a GPU
    activities = [ProfilerActivity.CPU, *others]
    with profile(activities=activities, acc_events=True, **options) as profiler:
        step()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'trace.json')
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())['traceEvents']
    return sorted((each for each in events if 'ts' in each), key=lambda each: each['ts'])


def flops_and_floor(step: Step) -> tuple[int, Step]:
    """Count the arithmetic of a step, and keep it as a step of its own.

    The step runs once, not in inference mode, which hides the kernels.

    Returns:
        FLOPs of its matrix products, convolutions and attentions, a multiply-add counting two;
        and a step of only these calls, with the same shapes, strides and types.
    """
    calls = _Calls()
    counter = FlopCounterMode(display=False, custom_mapping=_ON_CPU)
    with torch.compiler.set_stance('force_eager'), counter, calls:  # compiled code hides them
        step()
    return counter.get_total_flops(), calls.replay


class _Calls(TorchDispatchMode):
    """Keeps the calls that have FLOPs.

    Arguments of the same kernel, place, shape and type are kept once, so that a floor needs little
    memory. Parameters are all kept, as a model reads each one from memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kernels = flop_registry.keys() | _ON_CPU.keys()
        self._calls: list[tuple[Any, Sequence[Any], Mapping[str, Any]]] = []
        self._kept: dict[Any, Tensor] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func.overloadpacket in self._kernels:
            given: dict[Any, Any] = dict(enumerate(args)) | kwargs
            kept = {
                place: tree_map_only(Tensor, partial(self._keep, func, place), each)
                for place, each in given.items()
            }
            self._calls.append((func, [kept.pop(i) for i in range(len(args))], kept))
        return out

    def _keep(self, func: Any, place: int | str, tensor: Tensor) -> Tensor:
        base = tensor._base if tensor._base is not None else tensor
        if isinstance(base, torch.nn.Parameter):
            return tensor.detach()
        key = func, place, tensor.shape, tensor.stride(), tensor.dtype
        return self._kept.setdefault(key, tensor.detach())

    def replay(self) -> None:
        """Carry out only the calls."""
        with torch.inference_mode():
            for func, args, kwargs in self._calls:
                func(*args, **kwargs)
