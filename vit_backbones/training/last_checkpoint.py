"""The checkpoint from which a training goes on, and where in the data that is."""

import logging
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from torch.utils.data import DataLoader

from vit_backbones.checkpoints import contents
from vit_backbones.files import short_path

EPOCH_ITERS = 'epoch_iters'  # in the meta of a checkpoint, iterations of one epoch


def checkpoints(work_dir: str | Path) -> list[Path]:
    """Checkpoints of a work dir with an optimizer, the newest first, whole or not."""
    found = [path for path in Path(work_dir).glob('*.pth') if not path.name.startswith('best_')]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def find_last_checkpoint(work_dir: str | Path) -> Path | None:
    """The newest whole checkpoint of a work dir, or `None`.

    Half a file of a killed run does not count, nor do the best ones, which lack the optimizer.
    """
    return next(filter(zipfile.is_zipfile, checkpoints(work_dir)), None)


def _undamaged(work_dir: str | Path, say: Callable[[str], None]) -> Path | None:
    """As `find_last_checkpoint`, with all bytes read; a line for each damaged one before it."""
    for path in checkpoints(work_dir):
        if is_whole(path):
            return path
        say(f'{short_path(path)} is damaged')
    return None


def is_whole(path: str | Path) -> bool:
    """Whether a file of PyTorch has all its bytes, as they were written."""
    try:
        with zipfile.ZipFile(path) as file:  # its directory comes last
            return file.testzip() is None
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return False


def meta_of(checkpoint: str | Path) -> dict[str, Any]:
    """What a checkpoint of a training notes; empty for an address, which is not read twice."""
    if '://' in str(checkpoint):
        return {}
    return contents(checkpoint, 'meta').get('meta') or {}


def resume_from(cfg: Config, checkpoint: str, say: Callable[[str], None]) -> None:
    """Let a config resume from a checkpoint with its seed, or with `'auto'` from the last one.

    `say` gets a line on the choice, and one for each damaged file that is passed over.
    """
    if not isinstance(checkpoint, (str, os.PathLike)):
        raise TypeError(f"resume must be a checkpoint file or 'auto', got {checkpoint!r}")
    folder = cfg.work_dir
    if checkpoint == 'auto':
        last = _undamaged(folder, say)
        if last is None:
            say(f'nothing to resume in {short_path(folder)}: training starts anew')
            return
        checkpoint = last
        say(f'resuming from {short_path(checkpoint)}')
    elif Path(checkpoint).is_file() and not is_whole(checkpoint):
        last = _undamaged(folder, lambda line: None)
        where = f'; the last whole one in {short_path(folder)} is {last.name}' if last else ''
        raise ValueError(f'checkpoint {str(checkpoint)!r} is damaged{where}')
    cfg.load_from, cfg.resume = str(checkpoint), True
    seed = meta_of(checkpoint).get('seed')
    own = cfg.randomness.get('seed')
    if own not in (None, seed):
        say(f'seed {seed} of the checkpoint is kept, not seed={own}')
    cfg.randomness['seed'] = seed


def position(checkpoint: str | Path, loader: DataLoader, *, by_epoch: bool) -> tuple[int, int]:
    """Where a checkpoint stands in the data: the epoch, and how many of its batches are trained.

    A sampler without epochs, as MMEngine's `InfiniteSampler`, is one long epoch.
    """
    meta, now = meta_of(checkpoint), len(loader)
    epoch, done, length = meta.get('epoch', 0), meta.get('iter', 0), meta.get(EPOCH_ITERS, now)
    if not hasattr(loader.batch_sampler.sampler, 'epoch'):
        return 0, done
    if by_epoch:
        done -= epoch * length
    else:
        epoch, done = divmod(done, length)
    if done == length:
        return epoch, now
    if done and length != now:
        print_log(
            f'{checkpoint} was saved after {done} of {length} iterations of an epoch, which has '
            f'{now} now: the epoch starts anew',
            logger='current',
            level=logging.WARNING,
        )
    return epoch, done if length == now and 0 < done < now else 0
