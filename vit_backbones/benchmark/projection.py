"""What very many images would take, as arithmetic from measured figures; nothing of it was run."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Record = Mapping[str, Any]

IMAGES = 10**9
_TOKENS = 14 * 14 + 1  # of a ViT/16 at 224x224
_LARGE_TOKENS = 64 * 64 + 1  # at 1024x1024
_DIMS = 768  # of a ViT-B
_CORES, _GPUS = 16, 8  # cores beside a GPU, GPUs of a machine
_SHARD = 10_000  # images
_COCO = 118_287  # images of train2017
# Cases of `tools/benchmark.py targets` with batch, and what they train as the recipe does
_TRAININGS = {
    'gpu_vitdet': ('ViT-B of ViTDet, backbone alone', 'rel_pos', 4, 100),
    'gpu_mask2former_8': ('Mask2Former, DINOv2-B', 'ours', 8, 50),
}
_STATE = 16  # bytes a parameter: weights, gradients and two moments of AdamW in float32
_MODELS = {'ViT-L': 303_301_632, 'DINOv2 ViT-g': 1_136_479_232, 'DINOv3 ViT-7B': 6_716_030_976}


class Figure(NamedTuple):
    """A figure in words, and whether it was measured or computed, and from what."""

    what: str
    figure: str
    origin: str


_UNREAD = Figure('images/s of a core: read a tar, decode, resize', '', 'not measured yet')


def extraction_figures(
    million: Record, extraction: Record | None, gpu: Sequence[Record]
) -> list[Figure]:
    """Embeddings of a billion images by a ViT-B, from `million.json`, `extraction.json`, goals.

    Without an `extraction`, what needs it is left out.
    """
    time = next(g for g in gpu if g['case'] == 'gpu_windows')['figures']['time']['global']
    card = 4 * _LARGE_TOKENS / (time / 1e3) / _TOKENS
    return [
        Figure('a forward pass, ViT-B, 1024x1024, batch 4', f'{time:.1f} ms', 'measured, H200'),
        Figure(
            'images/s of a GPU, ViT-B, 224x224',
            f'{card:,.0f}',
            f'computed: as many tokens/s, {_TOKENS} of an image instead of {_LARGE_TOKENS}',
        ),
        Figure('GPU-hours, if images come fast enough', _hours(card), 'computed'),
        *(_reading(extraction, card) if extraction else [_UNREAD]),
        *_disk(million),
    ]


def _hours(speed: float) -> str:
    return f'{IMAGES / speed / 3600:,.0f}'


def _reading(extraction: Record, card: float) -> Iterator[Figure]:
    """The images, of which a GPU takes `card` a second, as cores read them."""
    read = _step(extraction, 'read tar')
    core = read['number'] / read['cpu_seconds']
    both, size = min(card, _CORES * core), read['bytes'] / read['number']
    days = IMAGES / both / 3600 / 24 / _GPUS
    yield Figure('images/s of a core: read a tar, decode, resize', f'{core:,.0f}', 'measured, CPU')
    yield Figure('cores that feed a GPU', f'{math.ceil(card / core)}', 'computed')
    yield Figure(f'images/s of a GPU with {_CORES} cores', f'{both:,.0f}', 'computed')
    yield Figure('GPU-hours with them', _hours(both), 'computed')
    yield Figure(
        f'days on 1, 4 and 16 machines of {_GPUS} GPUs',
        ', '.join(f'{days / machines:.1f}' for machines in (1, 4, 16)),
        'computed',
    )
    yield Figure(
        'bytes to read',
        f'{IMAGES * size / 1e12:,.0f} TB',
        f'computed: {size / 1e3:.0f} kB an image, measured',
    )


def _disk(million: Record) -> Iterator[Figure]:
    write, build = (_step(million, name) for name in ('write', 'build the index'))
    beside = write['bytes'] / write['number'] - 2 * million['dims']
    row = 2 * _DIMS + beside
    yield Figure(
        f'embeddings of {_DIMS} numbers, half precision',
        f'{IMAGES * row / 1e12:.2f} TB in {IMAGES // _SHARD:,} files',
        f'computed: {beside:.0f} bytes of a row besides, measured; {_SHARD:,} images a shard',
    )
    hours = IMAGES / (write['number'] / write['cpu_seconds']) * _DIMS / million['dims'] / 3600
    yield Figure('core-hours to write them', f'{hours:,.0f}', 'computed from rows/s, measured')
    size = build['bytes'] / build['number'] - 2 * million['dims'] + 2 * _DIMS
    yield Figure('an index', f'{IMAGES * size / 1e12:.2f} TB', 'computed from bytes, measured')
    # each row is compared with all cells, of which there are as many as the root of the rows
    grown = (IMAGES / build['number']) ** 1.5 * _DIMS / million['dims']
    yield Figure(
        'core-hours to build one index of all',
        f'{build["cpu_seconds"] * grown / 3600:,.0f}',
        f'computed: {build["cpu_seconds"]:.0f} core-seconds for {build["number"]:,} rows, '
        'measured; cells grow with the root of the rows',
    )
    parts = IMAGES // 10**7
    small = (10**7 / build['number']) ** 1.5 * _DIMS / million['dims'] * parts
    yield Figure(
        f'core-hours to build {parts} indices of ten million',
        f'{build["cpu_seconds"] * small / 3600:,.0f}',
        'computed; each is searched by itself',
    )


def training_figures(gpu: Sequence[Record]) -> list[list[str]]:
    """Trainings on COCO: the model, images/s of a GPU, and hours on 8, 16 and 64 GPUs."""
    rows = []
    for case, (model, name, batch, epochs) in _TRAININGS.items():
        time = next(goal for goal in gpu if goal['case'] == case)['figures']['time'][name]
        speed = batch / (time / 1e3)
        hours = [epochs * _COCO / speed / gpus / 3600 for gpus in (1, 8, 16, 64)]
        passes = IMAGES / speed / 3600
        cells = [model, f'{speed:.0f}', str(epochs), *(f'{each:.1f}' for each in hours)]
        rows.append([*cells, f'{passes:,.0f}'])
    return rows


def state_figures() -> list[list[str]]:
    """Weights, gradients and AdamW of models in float32: parameters, and GiB a GPU by FSDP."""
    return [
        [
            name,
            f'{number / 1e6:,.0f} M',
            *(f'{_STATE * number / gpus / 2**30:.1f}' for gpus in (1, 8, 16, 64)),
        ]
        for name, number in _MODELS.items()
    ]


def _step(record: Record, name: str) -> Record:
    return next(each for each in record['steps'] if each['step'] == name)
