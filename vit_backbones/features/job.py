"""Features of many images in one file: the whole job, from the arguments to the closing line."""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.progress import Progress

from vit_backbones import __version__
from vit_backbones.features.computing import Processes, compute
from vit_backbones.features.extractor import Extractor
from vit_backbones.features.parts import Parts
from vit_backbones.features.plan import Plan, make_plan
from vit_backbones.features.request import Request
from vit_backbones.features.stored import WRITERS, Rows, check_header, read_metadata
from vit_backbones.files import write_whole
from vit_backbones.terminal import progress

_NAMED = 3


def extract(paths: Sequence[Path], extractor: Extractor, request: Request) -> tuple[str, int]:
    """Write the features of images, or go on where an earlier run has ended.

    Args:
        paths: The images.
        extractor: Made by `prepare`.
        request: Checked by `check_request`.

    Returns:
        A closing line and an exit code: 2 if not one image could be read.

    Raises:
        OSError: If something cannot be written; finished parts stay.
        ValueError: If there is an output or a part of another job, and no `overwrite`.
    """
    started, processes = time.monotonic(), Processes.join()
    job = _fingerprint(paths, extractor, request.batch_size)
    if request.out.exists() and not request.overwrite:
        if read_metadata(request.out).get('job') == job:
            return '' if processes.rank else f'{request.out} holds these features already', 0
        raise ValueError(
            f'{request.out} exists and holds something else than these features (other images, '
            f'weights or options): choose another --out, or replace it with --overwrite'
        )
    parts = Parts(request.out, job)
    processes.wait()
    if processes.rank == 0:
        parts.start(request.overwrite)
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
        with processes.telling():
            compute(mine, extractor, request.num_workers, parts, bar)
    processes.wait()
    if processes.rank:
        return '', 0
    summary = _join(plan, paths, extractor, request, parts, job)
    return _closing_line(summary, len(paths), before, time.monotonic() - started, request.out)


def check_same(extractor: Extractor, file: Path) -> None:
    """Refuse features that were made in another way.

    Raises:
        OSError: If the file is not there.
        ValueError: If it says another model, weights, layers or options.
    """
    if not file.exists():
        raise FileNotFoundError(f'{file} does not exist')
    told, made = read_metadata(file), json.loads(json.dumps(_metadata(extractor, '')))
    for key in made:
        if key not in ('job', 'version', 'device') and told.get(key) != made[key]:
            raise ValueError(
                f'{file} was made with {key}={told.get(key)}, now it is {made[key]}: repeat the '
                f'options it was made with'
            )


def _fingerprint(paths: Sequence[Path], extractor: Extractor, batch_size: int) -> str:
    digest = hashlib.sha256(f'{__version__} {batch_size} {extractor.fingerprint()}'.encode())
    for path in paths:
        try:
            told = path.stat()
            digest.update(f'{path!r} {told.st_size} {told.st_mtime_ns}\n'.encode())
        except OSError:
            digest.update(f'{path!r} missing\n'.encode())
    return digest.hexdigest()


def _plan(paths: Sequence[Path], extractor: Extractor, request: Request, bar: Progress) -> Plan:
    def track(sizes: Iterable) -> Iterable:
        return bar.track(sizes, total=len(paths), description='headers')

    plan = make_plan(paths, extractor.resize, request.batch_size, request.num_workers, track)
    others = sum(item.shown != item.size for item in plan.items.values())
    if extractor.fixed and others:
        height, width = extractor.fixed
        bar.console.print(
            f'{extractor.loaded.name} takes images of {height}x{width} alone: {others} of '
            f'{len(paths)} are resized',
            highlight=False,
            soft_wrap=True,
        )
    return plan


class _Summary(NamedTuple):
    """What was written.

    Attributes:
        what: The features, in words.
        unreadable: Reasons by path.
        listed: Where these are listed.
    """

    what: str
    unreadable: dict[str, str]
    listed: Path


def _join(
    plan: Plan,
    paths: Sequence[Path],
    extractor: Extractor,
    request: Request,
    parts: Parts,
    job: str,
) -> _Summary:
    """Make the output of all parts, and list what could not be read.

    Raises:
        ValueError: If images are missing, as when files change under two processes.
    """
    reasons = parts.read() | plan.unreadable
    items = [plan.items[index] for index in parts.indices if index in plan.items]
    if len(items) + len(reasons) < len(paths):
        raise ValueError('files have changed meanwhile: repeat this to compute what is missing')
    unreadable = {str(paths[index]): why for index, why in sorted(reasons.items())}
    listed = request.out.with_name(f'{request.out.name}.unreadable.txt')
    if unreadable:
        lines = ''.join(f'{path}: {why}\n' for path, why in unreadable.items())
        write_whole(listed, lines.encode(errors='surrogateescape'))
    else:
        listed.unlink(missing_ok=True)
    what = _form(extractor)
    if items:
        count = len(extractor.names) or 1
        rows = Rows(
            items,
            extractor.names,
            lambda item: parts.arrays(item.index, count),
            lambda item: parts.shapes(item.index, count),
            extractor.dtype,
        )
        try:
            WRITERS[request.out.suffix](parts.draft, rows, _metadata(extractor, job))
            os.replace(parts.draft, request.out)
        except OSError as error:  # a full disk does not tell where
            parts.draft.unlink(missing_ok=True)
            error.filename = str(request.out)
            raise
    parts.remove()
    return _Summary(what, unreadable, listed)


def _metadata(extractor: Extractor, job: str) -> dict[str, Any]:
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


def _form(extractor: Extractor) -> str:
    layers, dims = ', '.join(extractor.layers), extractor.loaded.backbone.out_channels
    place = f'layer{"s" * (len(dims) > 1)} {layers}'
    if extractor.embeds:
        return f'{sum(dims)} numbers each (pool={extractor.form}, {place})'
    return f'{extractor.form} of {", ".join(map(str, sorted(set(dims))))} channels ({place})'


def _closing_line(
    summary: _Summary, total: int, before: int, seconds: float, out: Path
) -> tuple[str, int]:
    failed, number = summary.unreadable, total - len(summary.unreadable)
    names = ', '.join(list(failed)[:_NAMED]) + ', ...' * (len(failed) > _NAMED)
    names = names.encode(errors='backslashreplace').decode()  # a terminal takes UTF-8 alone
    if not number:
        _, why = next(iter(failed.items()))
        listed = f'listed in {summary.listed}'
        return f'error: none of {total} images can be read: {names} ({why}; {listed})', 2
    pieces = [
        f'{number} image{"s" * (number > 1)}, {summary.what}',
        f'{seconds:.0f} s',
        f'{(number - before) / seconds:.1f} images/s',
        str(out),
    ]
    if before:
        pieces.insert(1, f'{before} of them from an earlier run')
    if failed:
        pieces.append(f'{len(failed)} unreadable: {names} (listed in {summary.listed})')
    return ' · '.join(pieces), 0
