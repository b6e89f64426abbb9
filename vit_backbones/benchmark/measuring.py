"""A model beside its floor and beside others, in one run."""

from collections.abc import Mapping
from typing import Any

from vit_backbones.benchmark.cost import flops_and_floor, peak_memory
from vit_backbones.benchmark.subjects import Subject
from vit_backbones.benchmark.timing import interleaved


def measured(subject: Subject, peers: Mapping[str, Subject], repeats: int) -> dict[str, Any]:
    """What a model costs.

    Args:
        subject: The model.
        peers: Others by name, measured in turns with it and with its floor.
        repeats: Rounds that count.

    Returns:
        `parameters`, `flops`, `latency_ms`, `images_per_second`, `peak_memory_mib`, `floor_ms`,
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


def memory_of(subject: Subject) -> float:
    """MiB that a step takes at its peak, gradients included, weights and images aside."""
    subject.model.zero_grad(set_to_none=True)
    return peak_memory(subject.step, subject.setting.device) / 2**20
