"""Embeddings of many shards in a data set, by any number of processes that do not talk."""

import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vit_backbones.errors import counted
from vit_backbones.features.extractor import Extractor, computed
from vit_backbones.features.job import form_of, metadata_of
from vit_backbones.features.partitions import Embedded, Partitions
from vit_backbones.features.request import Request
from vit_backbones.features.shard_batches import Window
from vit_backbones.features.sharing import Worker
from vit_backbones.loaders import RGB_READER
from vit_backbones.shards.contents import ShardError
from vit_backbones.shards.found import Shard
from vit_backbones.terminal import progress
from vit_backbones.version import __version__


@dataclass
class Shared:
    """What one process did of a data set.

    Attributes:
        what: The features, in words.
        mine: Number of shards that are this process's own.
        before: Number of them that an earlier run computed.
        counts: Sums of `images`, `unreadable` and `deep` over its own shards.
        computed: Number of images that this run computed.
        damaged: Reasons by shard that could not be read, which are missing in the data set.
        listed: Folder with a list for each shard that is not whole.
        present: Number of all shards that the data set has now.
    """

    what: str
    worker: Worker
    mine: int
    listed: Path
    before: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    computed: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    present: int = 0
    seconds: float = 0.0


def extract_shards(
    shards: Sequence[Shard], extractor: Extractor, request: Request, worker: Worker
) -> Shared:
    """Write the embeddings of this process's shards that are missing, a file each.

    A shard that cannot be read as a whole is left out, and listed; the next run tries it again.

    Args:
        extractor: Made by `prepare`, for the same request.
        request: Checked by `check_request`; `out` is a folder.

    Raises:
        OSError: If something cannot be written; finished shards stay.
        ValueError: If the folder is of other features or shards, and there is no `overwrite`; if
            the config's own loading cannot read shards; if a single process can read nothing.
    """
    started = time.monotonic()
    _read_held(shards, extractor)
    partitions = Partitions(request.out, _settings(extractor, request))
    partitions.start(request.overwrite)
    mine = worker.share(shards)
    done = Shared(form_of(extractor), worker, len(mine), partitions.listed(shards[0]).parent)
    with progress(silent=worker.number > 0) as bar:
        for shard in bar.track(mine, description='shards'):
            _work(shard, extractor, request, partitions, done)
    done.present = sum(partitions.path(shard).exists() for shard in shards)
    done.seconds = time.monotonic() - started
    if worker.count == 1:  # of several, an exit code would end the others under torchrun
        _check_any(done)
    return done


def _check_any(done: Shared) -> None:
    if done.damaged and not done.present:
        name, why = next(iter(done.damaged.items()))
        raise ValueError(f'none of {counted(done.mine, "shard")} can be read: {name} ({why})')
    if not done.counts['images']:
        number = counted(done.counts['unreadable'], 'image')
        raise ValueError(f'none of {number} can be read: they are listed in {done.listed}')


def _read_held(shards: Sequence[Shard], extractor: Extractor) -> None:
    """Let images in shards be read, which have no path."""
    if not any(shard.source for shard in shards):
        return
    if extractor.loaded.reader.steps:
        raise ValueError(
            'images in shards are read as 8-bit RGB, and the config loads them otherwise: unpack '
            'the shards into files, or name the backbone without its config'
        )
    extractor.loaded = extractor.loaded._replace(reader=RGB_READER)


def _settings(extractor: Extractor, request: Request) -> dict[str, Any]:
    own = dict(batch_size=request.batch_size, image_key=request.image_key)
    text = f'{__version__} {own} {extractor.fingerprint()}'
    return metadata_of(extractor, hashlib.sha256(text.encode()).hexdigest()) | own


def _work(
    shard: Shard,
    extractor: Extractor,
    request: Request,
    partitions: Partitions,
    done: Shared,
) -> None:
    """Compute a shard if it is missing, and count it."""
    name = str(shard.source or shard.name)
    try:
        counts = partitions.counts(shard, request.overwrite)
        done.before += counts is not None
        if counts is None:
            counts = _compute(shard, extractor, request, partitions)
            done.computed += counts['images']
        done.counts.update(counts)
    except ShardError as error:
        partitions.write_list(shard, [f'{name}: {error}'])
        done.damaged[name] = str(error)


def _compute(
    shard: Shard, extractor: Extractor, request: Request, partitions: Partitions
) -> dict[str, int]:
    """Write the file of a shard; gives its counts."""
    stamp = shard.stamp()
    window = Window(request.batch_size, extractor.resize, extractor.loaded.reader)
    batches = window.batches(shard.samples(request.image_key))
    items, vectors = [], []
    for found, unreadable in computed(batches, extractor, request.num_workers):
        window.unreadable |= unreadable
        items += [item._replace(path='') for item, _ in found]  # their files may go
        vectors += [vector for _, (vector,) in found]
    if shard.stamp() != stamp:
        raise ShardError('it has changed while it was read')
    order = sorted(range(len(items)), key=lambda i: items[i].index)
    rows = np.stack([vectors[i] for i in order] or [_empty(extractor)])[: len(order)]
    counts = dict(images=len(items), unreadable=len(window.unreadable), deep=window.deep)
    reasons = sorted(window.unreadable.items())
    partitions.write_list(shard, [f'{window.keys[i]}: {why}' for i, why in reasons])
    embedded = Embedded(window.keys, [items[i] for i in order], rows)
    partitions.write(shard, embedded, dict(shard=stamp, counts=counts))
    return counts


def _empty(extractor: Extractor) -> np.ndarray:
    """The embedding of an empty image: its length is that of all others."""
    shape = *extractor.resize((32, 32)), extractor.loaded.backbone.in_channels
    return extractor.run([np.zeros(shape, np.uint8)])[0][0]
