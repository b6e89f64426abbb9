"""Times of several pieces of work, in one run, one after the other, again and again."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

Step = Callable[[], Any]
WARM_UPS = 2  # rounds that do not count: caches, memory pools, kernel choices, compilation


def interleaved(
    steps: Mapping[str, Step], repeats: int, device: torch.device, *, warm_ups: int = WARM_UPS
) -> dict[str, float]:
    """Time steps in turns (A B C A B C ...), so that what slows the machine slows them all.

    Args:
        steps: By name.
        repeats: Rounds that count, at least 1.
        device: Where they run; on CUDA its events measure, and each step is waited for.
        warm_ups: Rounds before.

    Returns:
        Median of each step in milliseconds.
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
