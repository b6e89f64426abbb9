"""Skip training images that cannot be read."""

import json
import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from vit_backbones.bits import check_whole
from vit_backbones.checks.entries import fault_of
from vit_backbones.config.datasets import leaf_datasets

_COUNTS = 'unreadable_images'  # in the message hub, and so in every checkpoint


class UnreadableDataError(RuntimeError):
    """Too many training images in a row cannot be read, or one that is measured.

    A worker process sends it with a traceback, whose last line is the text.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text.strip().splitlines()[-1].rpartition('UnreadableDataError: ')[2])


class _Strict:
    """A loading transform that names the image to validate or test on that it cannot read."""

    def __init__(self, transform: Any, split: str) -> None:
        self.transform, self.split = transform, split

    def __call__(self, results: dict) -> dict | None:
        try:
            check_whole(_file_of(self.transform, results))
            return self.transform(results)
        except Exception as error:  # every decoder has its own
            raise UnreadableDataError(
                f'{self.split} image {_file_of(self.transform, results)} cannot be read '
                f'({_reason(error)}): repair it, or take it out of the data'
            ) from error

    def __repr__(self) -> str:
        return repr(self.transform)


class _Tolerant:
    """A loading transform that returns `None` for an unreadable image and notes it in a file.

    MMEngine's `BaseDataset` then takes another sample. A file, because worker processes load.
    """

    def __init__(self, transform: Any, dataset: Any, notes: Path, max_in_a_row: int) -> None:
        self.transform, self.notes, self.max_in_a_row = transform, notes, max_in_a_row
        self.in_a_row = 0
        self._fault = partial(fault_of, dataset)
        self._sound: set[str] = set()  # what was asked already

    def __call__(self, results: dict) -> dict | None:
        try:
            loaded = self._loaded(results)
        except Exception as error:
            # Any exception: every decoder has its own. A mistake in the config fails on each image.
            self._note(results, error)
            return None
        self.in_a_row = 0
        return loaded

    def __repr__(self) -> str:
        return repr(self.transform)

    def _loaded(self, results: dict) -> dict | None:
        """Load; a file that must not be learned raises, which is asked once."""
        path = _file_of(self.transform, results)
        if path in self._sound:
            return self.transform(results)
        check_whole(path)
        loaded = self.transform(results)
        if loaded is not None and (fault := self._fault(loaded)):
            raise ValueError(fault)
        self._sound.add(path)
        return loaded

    def _note(self, results: dict, error: Exception) -> None:
        path, reason = _file_of(self.transform, results), _reason(error)
        # One write in append mode: lines of several processes do not mix.
        with self.notes.open('a', encoding='utf-8') as file:
            file.write(json.dumps([path, reason]) + '\n')
        self.in_a_row += 1
        if self.in_a_row >= self.max_in_a_row:
            raise UnreadableDataError(
                f'{self.in_a_row} training images in a row could not be read, the last one was '
                f'{path} ({reason}); check the data, {self.notes} lists them'
            )


def _file_of(transform: Any, results: dict) -> str:
    """The file that a transform loads."""
    loads_image = 'Annotation' not in type(transform).__name__
    key = 'img_path' if loads_image or 'seg_map_path' not in results else 'seg_map_path'
    return str(results.get(key, 'an image without a path'))


def _reason(error: Exception) -> str:
    return ' '.join(f'{type(error).__name__}: {error}'.split())


@HOOKS.register_module()
class SkipUnreadableImagesHook(Hook):
    """Skip training images that cannot be decoded, and name them.

    Wraps the transforms named `Load...` of the training dataset, also inside dataset wrappers.
    Another sample replaces an image that fails. The log names the image with the reason the first
    time, and has the counts at the end; `unreadable_images.txt` in the log folder lists all. So are
    images whose size is not the listed one, and those whose label map has another size than they,
    or labels that are no class. An image to validate or test on that cannot be read is named.

    Args:
        max_in_a_row: This many failures in a row in one process end the training, at least 1. 100
            happen by chance only if nearly all images are broken.

    Raises:
        ValueError: If `max_in_a_row` is below 1.
        UnreadableDataError: While training, after `max_in_a_row` failures in a row; while
            validating or testing, at the first.
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
        """Go on counting after a resume; wrap them with MMEngine's own runner."""
        self.counts.update(runner.message_hub.get_info(_COUNTS, {}))
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

    def before_val_epoch(self, runner: Runner) -> None:
        """Let an image that has gone since the start end a validation with its name."""
        _wrap(runner.val_loop.dataloader, lambda each, leaf: _Strict(each, 'validation'))

    def before_test_epoch(self, runner: Runner) -> None:
        """As before a validation."""
        _wrap(runner.test_loop.dataloader, lambda each, leaf: _Strict(each, 'test'))

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
        runner.message_hub.update_info(_COUNTS, dict(self.counts))

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
        return _wrap(
            dataloader, lambda each, leaf: _Tolerant(each, leaf, self._notes, self.max_in_a_row)
        )


def _wrap(dataloader: DataLoader, wrapper: Callable[[Any, Any], Any]) -> bool:
    """Wrap the loading transforms of MMEngine's datasets, which take another sample for `None`."""
    wrapped = False
    for dataset in leaf_datasets(dataloader.dataset):
        own = hasattr(dataset, '_rand_another') and hasattr(dataset, 'pipeline')
        transforms = dataset.pipeline.transforms if own else []
        for i in [i for i, t in enumerate(transforms) if type(t).__name__.startswith('Load')]:
            transforms[i] = wrapper(transforms[i], dataset)
            wrapped = True
    return wrapped
