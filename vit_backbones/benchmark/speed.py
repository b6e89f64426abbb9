"""Time, memory and FLOPs of backbones and of whole models, a row of a table each."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from vit_backbones.backbone import ViTFeatBackbone
from vit_backbones.benchmark.measuring import measured
from vit_backbones.benchmark.peers import build_peer
from vit_backbones.benchmark.report import (
    describe_environment,
    heading,
    write_json,
)
from vit_backbones.benchmark.subjects import (
    Setting,
    Subject,
    build_backbone,
    of_backbone,
    of_config,
)
from vit_backbones.benchmark.table import table_row
from vit_backbones.benchmark.timing import WARM_UPS
from vit_backbones.config.loading import CONFIGS
from vit_backbones.devices import choose_device
from vit_backbones.files import check_writable
from vit_backbones.position import Grid

_COLUMNS = ('model', 'size', 'batch', 'dtype', 'mode', 'ms', 'images/s', 'memory MiB', 'GFLOPs')
_MEANING = """\
Random weights, {how}, medians of {repeats} rounds in turns after {warm_ups}. Memory: what PyTorch
allocates in a step beyond weights and images. GFLOPs: of a batch, attention included, a
multiply-add counts two. x floor: time to that of the matrix products, convolutions and attentions
alone. The libraries: their time to that of the model, so above 1 they are slower.
"""


class Wanted(NamedTuple):
    """What is to be measured.

    Attributes:
        models: Names of models, and paths of configs.
        source: Library of the names.
        options: `key=value` changes of the configs.
        peers: Libraries to compare with.
        repeats: Rounds that count.
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
    """Every combination.

    Args:
        sizes: (H, W) of images.
        dtypes: Keys of `vit_backbones.devices.DTYPES`.
        modes: Of `subjects.MODES`.
        device: As PyTorch names it; by default the GPU, if there is one.
        batch_size: Images of a step.
        compiled: Whether models go through `torch.compile`.

    Raises:
        ValueError: For a GPU that is not there, and for float16 on a CPU.
    """
    chosen = choose_device(device)
    if chosen.type == 'cpu' and 'fp16' in dtypes:
        raise ValueError('--dtype fp16 is for GPUs; on a CPU take fp32 or bf16')
    return [
        Setting(size, batch_size, dtype, mode, chosen, compiled)
        for size, dtype, mode in product(sizes, dtypes, modes)
    ]


def run_speed(wanted: Wanted, under: Sequence[Setting], out: Path | None) -> int:
    """Measure, and print a table in Markdown.

    Args:
        wanted: What.
        under: Which conditions; each gives a row a model.
        out: JSON file: `environment`, and `rows`: a `Setting`'s fields, what `measured` gives, and
            `absent`: why a library is not compared.

    Returns:
        Exit code.

    Raises:
        ValueError: For a model, config or size that cannot be built.
        OSError: For a config that is not there, or an output that cannot be written.
    """
    if out is not None:
        check_writable(out)
    if wanted.options and not any(model.endswith(CONFIGS) for model in wanted.models):
        raise ValueError('--cfg-options change configs, and none is among the models')
    for model in wanted.models:  # what is wrong with the last one is told before the first
        _subject(model, wanted, under[0])
    environment = describe_environment(under[0].device)
    environment |= dict(weights='random', warm_ups=WARM_UPS, repeats=wanted.repeats)
    how = 'compiled' if under[0].compiled else 'eager'
    meaning = _MEANING.format(how=how, repeats=wanted.repeats, warm_ups=WARM_UPS)
    columns = [*_COLUMNS, 'M parameters', 'x floor', *wanted.peers]
    print(heading(environment), meaning, table_row(columns), sep='\n')
    print(table_row(['---'] * len(columns)), flush=True)
    rows: list[dict[str, Any]] = []
    for model, setting in product(wanted.models, under):
        rows.append(_row(model, wanted, setting))
        print(table_row(_cells(rows[-1], wanted.peers)), flush=True)
    _tell_absent(rows)
    if out is not None:
        write_json(out, environment=environment, rows=rows)
    return 0


def _subject(model: str, wanted: Wanted, setting: Setting) -> Subject:
    if model.endswith(CONFIGS):
        return of_config(model, wanted.options, setting)
    backbone = build_backbone(model, wanted.source, setting.size, out_indices='even4')
    return of_backbone(backbone, setting, backbone.in_channels)


def _row(model: str, wanted: Wanted, setting: Setting) -> dict[str, Any]:
    subject = _subject(model, wanted, setting)
    peers, absent = _peers(subject, wanted.peers)
    size = f'{setting.size[0]}x{setting.size[1]}'
    print(f'{model} {size} {setting.dtype} {setting.mode} ...', file=sys.stderr, flush=True)
    conditions = setting._asdict() | dict(device=str(setting.device))
    return dict(
        model=model, **conditions, **measured(subject, peers, wanted.repeats), absent=absent
    )


def _peers(subject: Subject, names: Sequence[str]) -> tuple[dict[str, Subject], dict[str, str]]:
    """Those that there are, and why the others are not."""
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


def _cells(row: Mapping[str, Any], peers: Sequence[str]) -> list[str]:
    compared = [row['peers'].get(name) for name in peers]
    return [
        Path(row['model']).stem if row['model'].endswith(CONFIGS) else row['model'],
        'x'.join(map(str, row['size'])),
        str(row['batch_size']),
        row['dtype'],
        row['mode'],
        _digits(row['latency_ms']),
        _digits(row['images_per_second']),
        _digits(row['peak_memory_mib']),
        _digits(row['flops'] / 1e9),
        _digits(row['parameters'] / 1e6),
        f'{row["times_floor"]:.2f}',
        *(f'{peer["times_ours"]:.2f}' if peer else '' for peer in compared),
    ]


def _digits(value: float) -> str:
    """Three digits, more before the point."""
    return f'{value:.3g}' if value < 100 else f'{value:.0f}'


def _tell_absent(rows: Iterable[Mapping[str, Any]]) -> None:
    """A line for each library that a model is not compared with."""
    reasons = {(row['model'], *each): None for row in rows for each in row['absent'].items()}
    for model, peer, reason in reasons:
        print(f'{model}: not beside {peer}, which {reason}')
