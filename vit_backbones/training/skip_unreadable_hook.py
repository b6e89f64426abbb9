"""Skip training images that cannot be read."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from vit_backbones.checks.data import FILES
from vit_backbones.config.datasets import leaf_datasets
from vit_backbones.files import check_regular


class UnreadableDataError(RuntimeError):
    """Too many training images in a row cannot be read."""


class _Tolerant:
    """A loading transform that returns `None` for an unreadable image and notes it in a file.

    MMEngine's `BaseDataset` then takes another sample. A file, because worker processes load.
    """

    def __init__(self, transform: Any, notes: Path, max_in_a_row: int) -> None:
        self.transform, self.notes, self.max_in_a_row = transform, notes, max_in_a_row
        self.in_a_row = 0

    def __call__(self, results: dict) -> dict | None:
        try:
            for key in FILES:
                check_regular(results.get(key))
            loaded = self.transform(results)
        except Exception as error:
            # Any exception: every decoder has its own. A mistake in the config fails on each image.
            self._note(results, error)
            return None
        self.in_a_row = 0
        return loaded

    def __repr__(self) -> str:
        return repr(self.transform)

    def _note(self, results: dict, error: Exception) -> None:
        loads_image = 'Annotation' not in type(self.transform).__name__
        key = 'img_path' if loads_image or 'seg_map_path' not in results else 'seg_map_path'
        path = str(results.get(key, 'an image without a path'))
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())
        # One write in append mode: lines of several processes do not mix.
        with self.notes.open('a', encoding='utf-8') as file:
            file.write(json.dumps([path, reason]) + '\n')
        self.in_a_row += 1
        if self.in_a_row >= self.max_in_a_row:
            raise UnreadableDataError(
                f'{self.in_a_row} training images in a row could not be read, the last one was '
                f'{path} ({reason}); check the data, {self.notes} lists them'
            )


@HOOKS.register_module()
class SkipUnreadableImagesHook(Hook):
    """Skip training images that cannot be decoded, and name them.

    Wraps the transforms named `Load...` of the training dataset, also inside dataset wrappers.
    Another sample replaces an image that fails. The log names the image with the reason the first
    time, and has the counts at the end; `unreadable_images.txt` in the log folder lists all.

    Args:
        max_in_a_row: This many failures in a row in one process end the training, at least 1. 100
            happen by chance only if nearly all images are broken.

    Raises:
        ValueError: If `max_in_a_row` is below 1.
        UnreadableDataError: While training, after `max_in_a_row` failures in a row.
    """

    def __init__(self, *, max_in_a_row: int = 100) -> None:
        if max_in_a_row < 1:
            raise ValueError(f'max_in_a_row must be at least 1, got {max_in_a_row}')
        self.max_in_a_row = max_in_a_row
        self.counts: Counter[str] = Counter()
        self._position = 0

    def after_build_train_dataloader(self, runner: Runner, dataloader: DataLoader) -> None:
        """Wrap the loading transforms; `QuietRunner` calls this before any worker starts."""
        self._wrap(runner, dataloader)

    def before_train(self, runner: Runner) -> None:
        """Wrap them with MMEngine's own runner."""
        loop = runner.train_loop
        new = self._wrap(runner, loop.dataloader)
        if new and hasattr(loop, 'dataloader_iterator') and loop.dataloader.num_workers:
            runner.logger.warning(
                'unreadable training images will not be skipped: the workers of an iteration-based '
                'loop have started already; train with tools/train.py'
            )

    def before_train_epoch(self, runner: Runner) -> None:
        """Wrap transforms again that another hook has replaced."""
        self._wrap(runner, runner.train_loop.dataloader)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Log names that are new."""
        if not is_main_process() or not self._notes.exists():
            return
        if self._notes.stat().st_size == self._position:
            return
        with self._notes.open(encoding='utf-8') as file:
            file.seek(self._position)
            lines = file.readlines()
            self._position = file.tell()
        for path, reason in map(json.loads, lines):
            if path not in self.counts:
                runner.logger.warning(f'skipped unreadable training image {path} ({reason})')
            self.counts[path] += 1

    def after_train(self, runner: Runner) -> None:
        """Log how often each was skipped."""
        self.after_train_iter(runner)
        if self.counts:
            names = (
                f'{os.path.basename(path)} ({count} time{"s" * (count > 1)})'
                for path, count in sorted(self.counts.items())
            )
            images = f'{len(self.counts)} unreadable training image{"s" * (len(self.counts) > 1)}'
            runner.logger.warning(f'skipped {images}: {", ".join(names)}')

    def _wrap(self, runner: Runner, dataloader: DataLoader) -> bool:
        """Wrap in place; `True` if there was anything to wrap."""
        self._notes = Path(runner.log_dir) / 'unreadable_images.txt'
        wrapped = False
        for dataset in leaf_datasets(dataloader.dataset):
            # Only MMEngine's datasets take another sample for None.
            own = hasattr(dataset, '_rand_another') and hasattr(dataset, 'pipeline')
            transforms = dataset.pipeline.transforms if own else []
            for i in [i for i, t in enumerate(transforms) if type(t).__name__.startswith('Load')]:
                transforms[i] = _Tolerant(transforms[i], self._notes, self.max_in_a_row)
                wrapped = True
        return wrapped
