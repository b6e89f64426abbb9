"""The parts of a training step, and what each one takes: time, kernels, operators and waits."""

import functools
import statistics
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, record_function

from vit_backbones.benchmark.counting import Counting, Counts
from vit_backbones.benchmark.measuring import traced

PARTS = ('backbone', 'neck', 'head', 'loss', 'backward', 'optimizer', 'other')
_MARK = 'part of the step: '
_LAUNCHES = ('cuda_runtime', 'cuda_driver')
_ON_GPU = ('kernel', 'gpu_memcpy', 'gpu_memset')

Step = Callable[[], object]


class Parts:
    """Knows which part of a step runs; of nested parts it is the inner one.

    Attributes:
        begins: Called when a part begins or goes on, with its name, and with `None` at the end.
    """

    def __init__(self) -> None:
        self._now: str | None = None
        self.begins: Callable[[str | None], object] = lambda part: None

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        """What runs within belongs to `part`, but what the backward pass computes anew to that."""
        before = self._now
        if before in (part, 'backward'):
            yield
            return
        self._change(part)
        try:
            yield
        finally:
            self._change(before)

    def wrap(self, owner: Any, method: str, part: str) -> None:
        """Let a method of `owner` belong to `part`."""
        inner = getattr(owner, method)

        @functools.wraps(inner)
        def run(*args: Any, **kwargs: Any) -> Any:
            with self.within(part):
                return inner(*args, **kwargs)

        setattr(owner, method, run)

    def _change(self, part: str | None) -> None:
        self._now = part
        self.begins(part)

    def watched(self, step: Step, begins: Callable[[str | None], object]) -> None:
        """Run a step, and call `begins` at each change."""
        self.begins = begins
        try:
            with self.within('other'):
                step()
        finally:
            self.begins = lambda part: None


def times(
    steps: Mapping[str, tuple[Step, Parts]], repeats: int, device: torch.device, *, warm_ups: int
) -> dict[str, dict[str, float]]:
    """Median milliseconds of each part and of the `whole`, for steps that take turns.

    Each step is waited for. On CUDA a part ends when its kernels have run, by events between the
    kernels, so that nothing is waited for within a step.
    """
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in steps}
    for _ in range(warm_ups + repeats):
        for name, (step, parts) in steps.items():
            rounds[name].append(_timed(step, parts, device))
    return {
        name: {part: statistics.median(each[part] for each in of[warm_ups:]) for part in of[0]}
        for name, of in rounds.items()
    }


def _timed(step: Step, parts: Parts, device: torch.device) -> dict[str, float]:
    marks: list[tuple[str | None, Any]] = []
    on_gpu = device.type == 'cuda'
    if on_gpu:
        torch.cuda.synchronize(device)
    clock = _event if on_gpu else time.perf_counter
    parts.watched(step, lambda part: marks.append((part, clock())))
    if on_gpu:
        torch.cuda.synchronize(device)
    spans = [
        (part, begin.elapsed_time(end) if on_gpu else 1e3 * (end - begin))
        for (part, begin), (_, end) in pairwise(marks)
    ]
    found = dict.fromkeys(PARTS, 0.0)
    for part, span in spans:
        found[part] += span
    return found | {'whole': sum(span for _, span in spans)}


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def counts(step: Step, parts: Parts, hosted: Iterable[Tensor] = ()) -> dict[str, Counts]:
    """Operators and waits of each part, and of the `whole`; `hosted` as `Counting` takes it."""
    marks: list[tuple[str | None, Counts]] = []
    with Counting(hosted) as counting:
        parts.watched(step, lambda part: marks.append((part, counting.so_far)))
    found = {part: Counts(0, Counter()) for part in PARTS}
    for (part, begin), (_, end) in pairwise(marks):
        own = Counts(end.operators - begin.operators, end.waits - begin.waits)
        found[part] = Counts(found[part].operators + own.operators, found[part].waits + own.waits)
    return found | {'whole': counting.so_far}


def kernels(step: Step, parts: Parts) -> dict[str, float]:
    """Milliseconds of the GPU's kernels that each part starts, and of the `whole`."""
    running: list[Any] = []

    def begins(part: str | None) -> None:
        if running:
            running.pop().__exit__(None, None, None)
        if part is not None:
            running.append(record_function(f'{_MARK}{part}'))
            running[-1].__enter__()

    def waited() -> None:
        parts.watched(step, begins)
        torch.cuda.synchronize()

    return by_part(traced(waited, ProfilerActivity.CUDA))


def by_part(events: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Milliseconds of the kernels of a trace, by the part in which the host started them.

    `events` are those of `traced`. The backward pass starts kernels in a thread of its own, so the
    moment decides, not the thread.
    """
    begun = [each for each in events if each.get('cat') == 'user_annotation']
    begun = [each for each in begun if each['name'].startswith(_MARK)]
    moments = [each['ts'] for each in begun]
    launches = {
        each['args']['correlation']: each['ts']
        for each in events
        if each.get('cat') in _LAUNCHES and 'correlation' in each.get('args', {})
    }
    found = dict.fromkeys(PARTS, 0.0)
    for each in events:
        if each.get('cat') in _ON_GPU:
            at = launches.get(each['args'].get('correlation'), each['ts'])
            place = bisect_right(moments, at) - 1
            part = begun[place]['name'].removeprefix(_MARK) if place >= 0 else 'other'
            found[part] += each['dur'] / 1e3
    return found | {'whole': sum(found.values())}
