"""Measure time, memory and FLOPs of backbones and of whole models, a row of a table each."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from vit_backbones.backbone import ViTFeatBackbone
from vit_backbones.benchmark.measuring import WARM_UPS, measured
from vit_backbones.benchmark.peers import build_peer
from vit_backbones.benchmark.results import (
    Row,
    describe_environment,
    digits,
    heading,
    table_head,
)
from vit_backbones.benchmark.subjects import (
    Setting,
    Subject,
    build_backbone,
    of_backbone,
    of_config,
)
from vit_backbones.config.loading import CONFIGS
from vit_backbones.devices import choose_device
from vit_backbones.position import Grid

_COLUMNS = ('model', 'size', 'batch', 'dtype', 'mode', 'ms', 'images/s', 'memory MiB', 'GFLOPs')
_MEANING = """\
Random weights, {how}, medians of {repeats} rounds in turns after {warm_ups}. Memory: the most that
PyTorch allocates in a step, without weights and images. GFLOPs: of a batch, attention included, a
multiply-add counts two. x floor: time over that of only the matrix products, convolutions and
attentions. The libraries: their time over that of the model, so above 1 they are slower.
"""


class Wanted(NamedTuple):
    """Names of models and paths of configs to measure, and libraries to compare with.

    The names are those of `source`; `options` are `key=value` changes of the configs; `repeats` is
    the number of rounds that count.
    """

    models: Sequence[str]
    source: str
    options: Sequence[str]
    peers: Sequence[str]
    repeats: int


def settings(
    sizes: Iterable[Grid],
    dtypes: Iterable[str],
    modes: Iterable[str],
    device: str | None,
    batch_size: int,
    compiled: bool,
) -> list[Setting]:
    """Every combination of sizes, types and modes; a ValueError if the device cannot run them."""
    chosen = choose_device(device)
    if chosen.type == 'cpu' and 'fp16' in dtypes:
        raise ValueError('dtype=fp16 is for GPUs; on a CPU choose fp32 or bf16')
    return [
        Setting(size, batch_size, dtype, mode, chosen, compiled)
        for size, dtype, mode in product(sizes, dtypes, modes)
    ]


def check(wanted: Wanted, setting: Setting) -> None:
    """Build every model once, so that mistakes show before the first one is measured."""
    if wanted.options and not any(model.endswith(CONFIGS) for model in wanted.models):
        raise ValueError('options= change configs, and none is among the models')
    for model in wanted.models:
        _subject(model, wanted, setting)


def environment(wanted: Wanted, setting: Setting) -> dict[str, Any]:
    """Where and how rows are measured."""
    found = describe_environment(setting.device)
    return found | dict(weights='random', warm_ups=WARM_UPS, repeats=wanted.repeats)


def measure(model: str, wanted: Wanted, setting: Setting) -> dict[str, Any]:
    """Measure a row: `model`, a `Setting`'s fields, the keys of `measured`, and `absent`.

    `absent` holds the reason for each library without a peer.
    """
    subject = _subject(model, wanted, setting)
    peers, absent = _peers(subject, wanted.peers)
    conditions = setting._asdict() | dict(device=str(setting.device))
    return dict(
        model=model, **conditions, **measured(subject, peers, wanted.repeats), absent=absent
    )


def _subject(model: str, wanted: Wanted, setting: Setting) -> Subject:
    if model.endswith(CONFIGS):
        return of_config(model, wanted.options, setting)
    backbone = build_backbone(model, wanted.source, setting.size, out_indices='even4')
    return of_backbone(backbone, setting, backbone.in_channels)


def _peers(subject: Subject, names: Sequence[str]) -> tuple[dict[str, Subject], dict[str, str]]:
    """Peers by name, and the reasons why others are missing."""
    peers, absent = {}, {}
    if not isinstance(subject.model, ViTFeatBackbone):
        return peers, dict.fromkeys(names, 'is compared with backbones, not with whole models')
    backbone, setting = subject.model, subject.setting
    padded = backbone.padded_size(setting.size)  # as much work as ours
    for name in names:
        try:
            peer = build_peer(name, backbone, padded)
            peers[name] = of_backbone(peer, setting._replace(size=padded), backbone.in_channels)
        except ValueError as error:
            absent[name] = str(error)
    return peers, absent


def introduction(wanted: Wanted, setting: Setting) -> str:
    """The lines above the first row of a table in Markdown."""
    how = 'compiled' if setting.compiled else 'eager'
    meaning = _MEANING.format(how=how, repeats=wanted.repeats, warm_ups=WARM_UPS)
    columns = [*_COLUMNS, 'M parameters', 'x floor', *wanted.peers]
    return '\n'.join([heading(environment(wanted, setting)), meaning, *table_head(columns)])


def cells(row: Row, peers: Sequence[str]) -> list[str]:
    """A measured row as text."""
    compared = [row['peers'].get(name) for name in peers]
    return [
        Path(row['model']).stem if row['model'].endswith(CONFIGS) else row['model'],
        'x'.join(map(str, row['size'])),
        str(row['batch_size']),
        row['dtype'],
        row['mode'],
        digits(row['latency_ms']),
        digits(row['images_per_second']),
        digits(row['peak_memory_mib']),
        digits(row['flops'] / 1e9),
        digits(row['parameters'] / 1e6),
        f'{row["times_floor"]:.2f}',
        *(f'{peer["times_ours"]:.2f}' if peer else '' for peer in compared),
    ]


def absent_lines(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line for each library that a model is not compared with."""
    reasons = {(row['model'], *each): None for row in rows for each in row['absent'].items()}
    return [f'{model}: not beside {peer}, which {reason}' for model, peer, reason in reasons]
