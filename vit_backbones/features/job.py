"""Features of many images in one file: the whole job, which goes on where it was killed."""

import contextlib
import datetime
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.progress import Progress

from vit_backbones.features.embedding_tables import settings_of
from vit_backbones.features.extractor import Extractor, compute
from vit_backbones.features.feature_files import WRITERS, Rows, check_header, read_metadata
from vit_backbones.features.parts import Parts
from vit_backbones.features.plan import Item, Plan, make_plan
from vit_backbones.features.request import Request
from vit_backbones.files import write_whole
from vit_backbones.loaders import deep_line
from vit_backbones.terminal import progress
from vit_backbones.version import __version__

_NAMED = 3


class Extracted(NamedTuple):
    """A finished job.

    Attributes:
        what: The features, in words.
        before: Number of images that an earlier run computed.
        unreadable: Reasons by path.
        listed: File that lists these.
        seconds: Duration; `None` if the output was there already.
    """

    what: str
    total: int
    before: int
    unreadable: dict[str, str]
    listed: Path
    seconds: float | None

    @property
    def examples(self) -> str:
        """The first unreadable images, in words."""
        names = ', '.join(list(self.unreadable)[:_NAMED])
        names += ', ...' * (len(self.unreadable) > _NAMED)
        return names.encode(errors='backslashreplace').decode()  # terminals take only UTF-8


def extract(paths: Sequence[Path], extractor: Extractor, request: Request) -> Extracted | None:
    """Write the features of images, or go on where an earlier run ended.

    Args:
        extractor: Made by `prepare`, for the same request.
        request: Checked by `check_request`.

    Returns:
        The result; `None` in all processes but the first.

    Raises:
        OSError: If something cannot be written; finished parts stay.
        ValueError: If there is an output or a part of another job, and no `overwrite`; if no image
            can be read.
    """
    started, processes = time.monotonic(), _Processes.join()
    job, out = _fingerprint(paths, extractor, request.batch_size), request.out
    if out.exists() and not request.overwrite:
        _check_job(out, job)
        there = Extracted(form_of(extractor), len(paths), len(paths), {}, _listed(out), None)
        return None if processes.rank else there
    parts = Parts(out.parent / f'.{out.name}.parts', job)
    plan, before = _compute(paths, extractor, request, parts, processes)
    if processes.rank:
        return None
    unreadable, total = _join(plan, paths, extractor, out, parts), len(paths)
    seconds = time.monotonic() - started
    made = Extracted(form_of(extractor), total, before, unreadable, _listed(out), seconds)
    if len(unreadable) == total:
        why = next(iter(unreadable.values()))
        raise ValueError(
            f'none of {total} images can be read: {made.examples} ({why}; listed in {made.listed})'
        )
    return made


def _check_job(out: Path, job: str) -> None:
    if read_metadata(out).get('job') != job:
        raise ValueError(
            f'{out} exists and holds something else than these features (other images, weights '
            f'or options): choose another out=..., or replace it with overwrite=True'
        )


def _compute(
    paths: Sequence[Path],
    extractor: Extractor,
    request: Request,
    parts: Parts,
    processes: '_Processes',
) -> tuple[Plan, int]:
    """Compute the missing features; gives the plan, and the number of images done before."""
    processes.wait()
    if processes.rank == 0:
        parts.start(request.out, request.overwrite)
    processes.wait()
    with progress(silent=processes.rank > 0) as bar:
        plan = _plan(paths, extractor, request, bar)
        if request.out.suffix == '.safetensors':
            check_header(plan.items.values(), extractor.names)
        done = {*parts.read(), *parts.indices}
        before = len(parts.indices)
        processes.wait()
        left = [[item for item in batch if item.index not in done] for batch in plan.batches]
        mine = list(filter(None, left))[processes.rank :: processes.count]
        with processes.failing():
            compute(mine, extractor, request.num_workers, parts, bar)
    processes.wait()
    return plan, before


class _Processes(NamedTuple):
    """The processes that share the work, as torchrun starts them."""

    rank: int
    count: int

    @classmethod
    def join(cls) -> '_Processes':
        """Meet the others, if there are any."""
        rank, count = (int(os.environ.get(k, d)) for k, d in (('RANK', 0), ('WORLD_SIZE', 1)))
        if count > 1 and not torch.distributed.is_initialized():
            patience = datetime.timedelta(days=1)  # the others may have more to do
            torch.distributed.init_process_group('gloo', timeout=patience)
        return cls(rank, count)

    def wait(self) -> None:
        """Wait for the others; ends silently if one of them failed, as that one reports it."""
        if self.count > 1:
            try:
                torch.distributed.barrier()
            except RuntimeError:
                raise SystemExit(2) from None

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """Mark a failure for a report by its process, whichever that is."""
        try:
            yield
        except (OSError, RuntimeError, ValueError) as error:
            error.of_any_process = True
            raise


def check_same(extractor: Extractor, file: Path) -> None:
    """Refuse a file of features that another model, weights, layers or options made."""
    if not file.exists():
        raise FileNotFoundError(f'{file} does not exist')
    found, made = settings_of(file), json.loads(json.dumps(metadata_of(extractor, '')))
    for key in made:
        if key not in ('job', 'version', 'device') and found.get(key) != made[key]:
            raise ValueError(
                f'{file} was made with {key}={found.get(key)}, now it is {made[key]}: repeat the '
                f'options it was made with'
            )


def _fingerprint(paths: Sequence[Path], extractor: Extractor, batch_size: int) -> str:
    digest = hashlib.sha256(f'{__version__} {batch_size} {extractor.fingerprint()}'.encode())
    for path in paths:
        try:
            known = path.stat()
            digest.update(f'{path!r} {known.st_size} {known.st_mtime_ns}\n'.encode())
        except (OSError, ValueError):  # of a name with NUL
            digest.update(f'{path!r} missing\n'.encode())
    return digest.hexdigest()


def _plan(paths: Sequence[Path], extractor: Extractor, request: Request, bar: Progress) -> Plan:
    def track(sizes: Iterable) -> Iterable:
        return bar.track(sizes, total=len(paths), description='headers')

    how, reader = (request.batch_size, request.num_workers, track), extractor.loaded.reader
    plan = make_plan(paths, extractor.resize, *how, reader.size)
    lines = [deep_line(paths, reader)]
    others = sum(item.shown != item.size for item in plan.items.values())
    if extractor.fixed and others:
        height, width = extractor.fixed
        lines.append(
            f'{extractor.loaded.name} takes only images of {height}x{width}: {others} of '
            f'{len(paths)} are resized'
        )
    for line in filter(None, lines):
        bar.console.print(line, highlight=False, soft_wrap=True)
    return plan


def _join(
    plan: Plan, paths: Sequence[Path], extractor: Extractor, out: Path, parts: Parts
) -> dict[str, str]:
    """Join all parts into the output, and list the unreadable images; gives their reasons."""
    reasons = parts.read() | plan.unreadable
    items = [plan.items[index] for index in parts.indices if index in plan.items]
    if len(items) + len(reasons) < len(paths):
        raise ValueError('files have changed: repeat this to compute the missing features')
    unreadable = {str(paths[index]): why for index, why in sorted(reasons.items())}
    lines = ''.join(f'{path}: {why}\n' for path, why in unreadable.items())
    if unreadable:
        write_whole(_listed(out), lines.encode(errors='surrogateescape'))
    else:
        _listed(out).unlink(missing_ok=True)
    if items:
        _write(items, extractor, out, parts)
    parts.remove()
    return unreadable


def _write(items: Sequence[Item], extractor: Extractor, out: Path, parts: Parts) -> None:
    names, count = extractor.names, len(extractor.names) or 1
    rows = Rows(
        items,
        names,
        lambda item: parts.arrays(item.index, count),
        lambda item: parts.shapes(item.index, count),
        extractor.dtype,
    )
    try:
        WRITERS[out.suffix](parts.draft, rows, metadata_of(extractor, parts.job))
        os.replace(parts.draft, out)
    except OSError as error:  # a full disk does not say where
        parts.draft.unlink(missing_ok=True)
        error.filename = str(out)
        raise


def _listed(out: Path) -> Path:
    return out.with_name(f'{out.name}.unreadable.txt')


def metadata_of(extractor: Extractor, job: str) -> dict[str, Any]:
    """How features are made, as JSON; `job` is a fingerprint of all that they depend on."""
    loaded, vit = extractor.loaded, extractor.loaded.backbone
    return dict(
        model=loaded.name,
        source=str(loaded.options.get('source', 'timm')),
        weights=str(loaded.weights),
        layers=list(vit.out_indices),
        dims=list(vit.out_channels),
        pool=extractor.form,
        strides=list(vit.strides),
        num_prefix_tokens=vit.num_prefix_tokens,
        mean=list(loaded.mean),
        std=list(loaded.std),
        channels='BGR' if loaded.is_bgr else 'RGB',
        version=__version__,
        job=job,
        **extractor.settings,
    )


def form_of(extractor: Extractor) -> str:
    """The features in words."""
    layers, dims = ', '.join(extractor.layers), extractor.loaded.backbone.out_channels
    place = f'layer{"s" * (len(dims) > 1)} {layers}'
    if extractor.embeds:
        return f'{sum(dims)} numbers each (pool={extractor.form}, {place})'
    return f'{extractor.form} of {", ".join(map(str, sorted(set(dims))))} channels ({place})'
