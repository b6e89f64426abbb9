"""Validate a few batches as MMEngine's loop does, and leave no trace: no file, metric or mode."""

import contextlib
import copy
import itertools
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import all_gather_object
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.runner import autocast
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from vit_backbones.checks.validation_faults import reason_of
from vit_backbones.terminal import quiet_prints, silence

# Where metrics write, and so where their copies must not
_FILES = ('outfile_prefix', 'output_dir', 'out_file_path', 'proposals_file', 'seg_out_dir')
_READ = ('COCO', 'LVIS')  # classes of annotation files: large, and no evaluation changes them


class ValidationError(ValueError):
    """A validation step fails; the text is one line with the reason."""


class Validated(NamedTuple):
    """What a trial showed: batches of this process, metrics of all, wall time in seconds."""

    batches: int
    metrics: dict[str, Any]
    seconds: float


def validate(
    model: nn.Module, loader: DataLoader, evaluator: Evaluator, *, count: int, fp16: bool = False
) -> Validated | None:
    """Validate the first `count` batches, in every process; `None` for data without indices.

    Raises:
        ValidationError: If it fails, in all processes alike.
    """
    start, batches = time.monotonic(), _first_indices(loader, count)
    if not all(all_gather_object(batches is not None)):
        return None
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        for context in (silence(), quiet_prints(), same_randomness(), _same_modes(model)):
            stack.enter_context(context)
        trial = _Trial(model, loader, evaluator, Path(folder), fp16)
        trial.attempt(lambda: [trial.step(indices) for indices in batches or ()])
        images = sum(all_gather_object(sum(map(len, batches or ()))))
        if not images:
            raise ValidationError(
                f'val_dataloader gives no batch of its {len(loader.dataset)} images: leave '
                f'drop_last=True out'
            )
        metrics = trial.evaluate(min(images, len(loader.dataset)))
    return Validated(len(batches or ()), metrics, time.monotonic() - start)


class _Trial:
    """A validation whose evaluator is a copy."""

    def __init__(
        self, model: nn.Module, loader: DataLoader, evaluator: Evaluator, folder: Path, fp16: bool
    ) -> None:
        self.model, self.loader, self.fp16 = model, loader, fp16
        self.outputs: Sequence[Any] = ()
        self.failures: list[Exception] = []
        self.evaluator = _copied(evaluator, folder, self.failures)

    @torch.no_grad()
    def step(self, indices: Sequence[int]) -> None:
        """Load a batch and validate it."""
        self.outputs = ()
        batch = self.loader.collate_fn([self.loader.dataset[index] for index in indices])
        with autocast(enabled=self.fp16):
            outputs = self.model.val_step(batch)
        losses = outputs[-1:] if getattr(outputs[-1], 'keys', list)() == ['loss'] else []
        self.outputs = outputs[: len(outputs) - len(losses)]
        self.evaluator.process(data_samples=self.outputs, data_batch=batch)

    def evaluate(self, size: int) -> dict[str, Any]:
        """The metrics of all processes; the first process computes them."""
        metrics: dict[str, Any] = {}
        self.attempt(lambda: metrics.update(self.evaluator.evaluate(size)))
        return metrics

    def attempt(self, action: Callable[[], Any]) -> None:
        """Act, and fail in all processes if one fails, so that none waits for it."""
        try:
            action()
        except Exception as raised:  # each class has its own
            self.failures.append(raised)
        mine = self.failures[0] if self.failures else None
        line = mine and reason_of(mine, self.outputs, self.loader.dataset)
        for text in filter(None, all_gather_object(line)):
            raise ValidationError(text) from mine


def _first_indices(loader: DataLoader, count: int) -> list[Sequence[int]] | None:
    """Indices of the first batches; the sampler stays as it is."""
    dataset, batches = loader.dataset, loader.batch_sampler
    if isinstance(dataset, IterableDataset) or batches is None:
        return None
    try:
        copied = copy.deepcopy(batches, {id(dataset): dataset})
    except TypeError:  # a sampler in the middle of its work
        return None
    return [list(each) for each in itertools.islice(copied, count)]


def _copied(evaluator: Evaluator, folder: Path, failures: list[Exception]) -> Evaluator:
    """An evaluator with the state of another one; it writes into `folder`."""
    copied = copy.copy(evaluator)
    vars(copied).pop('evaluate', None)  # some runner has wrapped the original's
    copied.metrics = [_copied_metric(each, folder, failures) for each in evaluator.metrics]
    return copied


def _copied_metric(metric: BaseMetric, folder: Path, failures: list[Exception]) -> BaseMetric:
    held = vars(metric).values()
    memo = {id(each): each for each in held if any(e in type(each).__name__ for e in _READ)}
    if (own := getattr(metric, 'tmp_dir', None)) is not None:  # it would be removed with the copy
        memo[id(own)] = tempfile.TemporaryDirectory(dir=folder)
    try:
        copied = copy.deepcopy(metric, memo)
    except TypeError:  # some objects cannot be copied
        copied = copy.copy(metric)
        copied.results = []
    for name in _FILES:
        if isinstance(path := getattr(copied, name, None), str) and path:
            elsewhere = folder / name / Path(path).name
            (elsewhere.parent if 'file' in name else elsewhere).mkdir(parents=True, exist_ok=True)
            setattr(copied, name, str(elsewhere))
    if hasattr(copied, 'keep_results'):
        copied.keep_results = True  # the folder is gone before the copy
    compute = copied.compute_metrics

    def guarded(results: list) -> dict[str, Any]:
        """Metrics of the images that were validated; no process waits for one that failed."""
        try:
            if hasattr(copied, 'img_ids'):
                copied.img_ids = _image_ids(results)
            return compute(results)
        except Exception as raised:
            failures.append(raised)
            return {}

    copied.compute_metrics = guarded
    return copied


def _image_ids(results: list) -> list[Any] | None:
    """Ids of the images in the results of metrics of COCO's kind; `None` stands for all images."""
    with contextlib.suppress(KeyError, TypeError, ValueError):
        return list(dict.fromkeys(prediction['img_id'] for _, prediction in results))
    return None


@contextlib.contextmanager
def same_randomness() -> Iterator[None]:
    """Give the generators of Python, NumPy and PyTorch their state back."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextlib.contextmanager
def _same_modes(model: nn.Module) -> Iterator[None]:
    """Evaluate, and give each part its mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
