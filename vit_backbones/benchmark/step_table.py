"""The table of a training step: each part's time, kernels, operators and waits, beside peers."""

import copy
import statistics
import time
from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn

from vit_backbones.benchmark.measuring import WARM_UPS, memory_of
from vit_backbones.benchmark.results import describe_environment, table_head, table_row
from vit_backbones.benchmark.step_parts import PARTS, counts, kernels, times
from vit_backbones.benchmark.step_peers import step_peers
from vit_backbones.benchmark.subjects import Setting, built
from vit_backbones.benchmark.training_step import (
    OBJECTS,
    TrainingStep,
    autocast_of,
    size_of,
    training_config,
)
from vit_backbones.config.datasets import missing_data
from vit_backbones.config.explain import describe
from vit_backbones.config.facts import Facts
from vit_backbones.config.loading import use_scope
from vit_backbones.devices import choose_device
from vit_backbones.errors import counted
from vit_backbones.position import Grid
from vit_backbones.terminal import quiet_log, quiet_prints

_COMPARED = ('whole', 'backbone', 'head', 'loss', 'backward')  # times of peers
_NO_DATA = 'not measured: no data'


class Wanted(NamedTuple):
    """What to measure.

    Attributes:
        options: `key=value` changes of the config.
        size: (H, W) of the images, `None` for the config's; so are `batch_size` and `dtype`.
        compiled: Whether backbone and neck go through `torch.compile`; operators are those before.
        peers: Whether to measure other ways too.
    """

    config: str
    options: Sequence[str] = ()
    size: Grid | None = None
    batch_size: int | None = None
    dtype: str | None = None
    device: str | None = None
    compiled: bool = False
    repeats: int = 10
    peers: bool = True


def measure_step(wanted: Wanted) -> dict[str, Any]:
    """Measure a training step of a config.

    Gives `environment`, the conditions, `parts` (a row for each and for the whole, which `data` is
    not part of), `memory_mib`, `data`, `peers` and `absent`, the reasons for missing peers.
    """
    device = choose_device(wanted.device)
    config = training_config(wanted.config, wanted.options)
    model = built(config, wanted.config)
    setting = Setting(
        wanted.size or size_of(config, model),
        wanted.batch_size or config.train_dataloader.get('batch_size') or 1,
        wanted.dtype or autocast_of(config),
        'train',
        device,
        wanted.compiled,
    )
    ours = TrainingStep(config, wanted.config, model, setting).tried()
    others, absent = step_peers(config, wanted.config, setting) if wanted.peers else ({}, {})
    rows, compared = _measured({'ours': ours} | others, wanted, setting)
    return dict(
        environment=describe_environment(device),
        config=wanted.config,
        **setting._asdict() | dict(device=str(device)),
        objects=OBJECTS,
        warm_ups=WARM_UPS,
        repeats=wanted.repeats,
        parts=rows,
        memory_mib=compared.pop('ours')['memory_mib'],
        data=data_time(config, model, setting, wanted.repeats),
        peers=compared,
        absent=absent,
    )


def _measured(
    steps: Mapping[str, TrainingStep], wanted: Wanted, setting: Setting
) -> tuple[list[dict[str, Any]], dict[str, dict[str, float]]]:
    """Rows of our parts, and what each way takes altogether and relative to ours."""
    numbers = {}
    for name, each in steps.items():
        numbers[name] = counts(each.tried().step, each.parts, each.hosted)
        if wanted.compiled:
            each.compile()
    turns = {name: (each.step, each.parts) for name, each in steps.items()}
    spans = times(turns, wanted.repeats, setting.device, warm_ups=WARM_UPS)
    on_gpu = kernels(*turns['ours']) if setting.device.type == 'cuda' else {}
    memory = {name: memory_of(each) for name, each in steps.items()}
    rows = [
        dict(
            part=part,
            ms=spans['ours'][part],
            share=spans['ours'][part] / spans['ours']['whole'],
            kernels_ms=on_gpu.get(part),
            operators=numbers['ours'][part].operators,
            synchronisations=numbers['ours'][part].synchronisations,
            waits=dict(numbers['ours'][part].waits),
        )
        for part in (*PARTS, 'whole')
    ]
    return rows, {
        name: dict(
            ms={part: spans[name][part] for part in _COMPARED},
            times_ours={part: _over(spans[name][part], spans['ours'][part]) for part in _COMPARED},
            operators=numbers[name]['whole'].operators,
            synchronisations=numbers[name]['whole'].synchronisations,
            memory_mib=memory[name],
            times_memory=_over(memory[name], memory['ours']),
        )
        for name in steps
    }


def _over(value: float, ours: float) -> float | None:
    return value / ours if ours else None


def data_time(config: Config, model: nn.Module, setting: Setting, repeats: int) -> dict[str, Any]:
    """Milliseconds of a batch in one process, loaded and preprocessed, and the config's workers.

    Where the data are missing, `missing` has the reason instead.
    """
    if next(missing_data(Facts.of(config, ('train',))), None):
        return dict(missing=_NO_DATA)
    wanted = copy.deepcopy(config.train_dataloader)
    workers = wanted.get('num_workers') or 0
    wanted = {k: v for k, v in wanted.items() if k not in ('prefetch_factor', 'timeout')}
    wanted |= dict(num_workers=0, persistent_workers=False, batch_size=setting.batch_size)
    use_scope(config)
    try:
        with quiet_log(), quiet_prints():
            loader = Runner.build_dataloader(wanted, seed=0)
        batches = chain.from_iterable(repeat(loader, 1 + repeats))  # a small one begins anew
        spans = [_loaded(batches, model, setting) for _ in range(1 + repeats)]
    except StopIteration:
        return dict(missing='not measured: no batch')
    except Exception as error:  # each library has its own
        return dict(missing=f'not measured: {describe(error)}')
    return dict(ms=statistics.median(spans[1:]), workers=workers)


def _loaded(batches: Any, model: nn.Module, setting: Setting) -> float:
    start = time.perf_counter()
    with torch.no_grad():
        model.data_preprocessor(next(batches), training=True)
    if setting.device.type == 'cuda':
        torch.cuda.synchronize(setting.device)
    return 1e3 * (time.perf_counter() - start)


def introduction(record: Mapping[str, Any]) -> str:
    """The conditions of a record in a few sentences."""
    height, width = record['size']
    how = 'backbone and neck compiled' if record['compiled'] else 'eager'
    return (
        f'{record["config"]}: {record["batch_size"]} x {height}x{width}, {record["dtype"]}, {how}; '
        f'random weights, {record["objects"]} drawn objects an image, medians of '
        f'{record["repeats"]} rounds after {record["warm_ups"]}.'
    )


def step_lines(record: Mapping[str, Any]) -> list[str]:
    """A record as tables in Markdown, and sentences on what they leave out."""
    on_gpu = record['parts'][-1]['kernels_ms'] is not None
    gpu = ['kernels ms', 'waiting'] if on_gpu else []
    lines = [*table_head(['part', 'ms', 'share', *gpu, 'operators', 'synchronisations'])]
    data = record['data']
    alone = data.get('missing') or f'{data["ms"]:.1f}'
    lines.append(table_row(['data', alone, *[''] * (3 + len(gpu))]))
    lines += [_part_row(row, on_gpu) for row in record['parts']]
    lines += ['', f'Memory of the step: {record["memory_mib"]:.0f} MiB.']
    if 'ms' in data:
        beside = counted(data['workers'], 'worker')
        lines.append(f'Data: a batch in one process; the training has {beside} beside the step.')
    if record['peers']:
        columns = [*_COMPARED, 'operators', 'synchronisations', 'memory']
        lines += ['', *table_head(['peer / ours', *columns])]
        lines += [_peer_row(name, peer, record) for name, peer in record['peers'].items()]
    lines += [f'not beside {name}: {reason}' for name, reason in record['absent'].items()]
    return lines


def _part_row(row: Mapping[str, Any], on_gpu: bool) -> str:
    cells = [row['part'], f'{row["ms"]:.1f}', f'{row["share"]:.0%}']
    if on_gpu:
        wait = 1 - row['kernels_ms'] / row['ms'] if row['ms'] else 0
        cells += [f'{row["kernels_ms"]:.1f}', f'{max(wait, 0):.0%}']
    return table_row([*cells, str(row['operators']), str(row['synchronisations'])])


def _peer_row(name: str, peer: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    ours = record['parts'][-1]
    ratios = [*peer['times_ours'].values()]
    ratios += [_over(peer[key], ours[key]) for key in ('operators', 'synchronisations')]
    ratios += [peer['times_memory']]
    return table_row([name, *('' if each is None else f'{each:.2f}' for each in ratios)])
