"""One pass of a trained model over its validation or test images."""

import contextlib
import heapq
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from vit_backbones.config.datasets import class_names_and_colors
from vit_backbones.config.facts import listed, type_name
from vit_backbones.devices import choose_device
from vit_backbones.evaluation.confusion import (
    SCORE_THR,
    class_metrics,
    compares_pixels,
    measure,
    unlabelled,
)
from vit_backbones.loaders import RGB_READER, Reader, reader_of
from vit_backbones.terminal import progress, quiet_prints
from vit_backbones.training.run import prepare

Outputs = Sequence[BaseDataElement] | None


class Predictions(NamedTuple):
    """Results of one pass over the images.

    Attributes:
        palette: (n, 3) uint8 RGB by label.
        confusion: Matrix of all images, as `evaluation.confusion` describes it.
        per_class: (num_classes,) values by the name of a metric: `IoU` and `Acc` in percent as
            mmseg prints them, or mmdet's `AP`; empty if the evaluator gives none.
        worst: The lowest scores by `measure` with their data samples, the lowest first.
        is_pixels: True if pixels were compared, False if instances were.
        reader: Reads the images.
    """

    classes: list[str]
    palette: np.ndarray
    confusion: np.ndarray
    per_class: dict[str, np.ndarray]
    worst: list[tuple[float, BaseDataElement]]
    is_pixels: bool
    reader: Reader = RGB_READER


def predict_split(
    config: Config, checkpoint: Path, *, split: str, num_worst: int = 0, device: str | None = None
) -> Predictions:
    """Run a model over the images of a split, as `tools/test.py` does, and compare.

    Args:
        config: Config of the training; changed.
        split: `'val'` or `'test'`.
        num_worst: How many of the worst images to keep.
        device: `None` for the GPU where there is one.

    Raises:
        OSError, ValueError: If the config has no such split, or `tools/test.py` refuses it.
    """
    place = choose_device(device)
    _test_on(config, split)
    config.update(load_from=str(checkpoint), resume=False, log_level='WARNING', launcher='none')
    collector = _Collector(num_worst)
    with tempfile.TemporaryDirectory() as folder:  # for logs
        # MMEngine names a run by its second, and reuses the folder of one with the same name
        config.update(work_dir=folder, experiment_name=folder.replace('/', '_'))
        runner = prepare(config, ('test',))
        runner.model.to(place)
        runner.register_hook(collector, 'LOWEST')
        with quiet_prints(), contextlib.closing(collector):
            metrics = runner.test()
    is_pixels, confusion = collector.is_pixels, collector.confusion
    classes, palette = class_names_and_colors(collector.metainfo)
    per_class = (
        {name: 100 * values for name, values in class_metrics(confusion).items()}
        if is_pixels
        else _average_precision(metrics, classes)
    )
    found = confusion, per_class, collector.worst(), is_pixels
    return Predictions(classes, palette, *found, reader_of(config))


def _test_on(config: Config, split: str) -> None:
    """Make the test loop of a config run on one of its splits, with the AP of each class."""
    for part in ('dataloader', 'evaluator'):
        value = config.get(f'{split}_{part}')
        if value is None:
            raise ValueError(f'{config.filename} has no {split}_{part}: choose another split=...')
        config[f'test_{part}'] = value
    config.test_cfg = dict(config.get(f'{split}_cfg') or {}, type='TestLoop')
    for each in listed(config.test_evaluator):
        if type_name(each).endswith('CocoMetric'):
            each['classwise'] = True


def _average_precision(metrics: dict[str, Any], classes: Sequence[str]) -> dict[str, np.ndarray]:
    """mmdet's values of `CocoMetric(classwise=True)`, of masks where there are masks."""
    short = {name.split('/', 1)[-1]: value for name, value in metrics.items()}
    found = [short.get(f'{name}_precision', math.nan) for name in classes]
    return {'AP': np.array(found)} if np.isfinite(found).any() else {}


class _Collector(Hook):
    """Measures each image of a test, and keeps the worst ones."""

    def __init__(self, num_worst: int) -> None:
        self.num_worst = num_worst
        self.progress = progress()
        self._kept: list[tuple[float, int, BaseDataElement]] = []  # a heap, the best one first
        self._number = 0

    def before_test_epoch(self, runner: Runner) -> None:
        loop = runner.test_loop
        self.metainfo = loop.dataloader.dataset.metainfo
        self.num_classes = len(self.metainfo['classes'])
        indices = [getattr(metric, 'ignore_index', None) for metric in loop.evaluator.metrics]
        self.ignore_index = next((index for index in indices if index is not None), 255)
        self.confusion = np.zeros((self.num_classes + 1,) * 2, dtype=np.int64)
        self.task = self.progress.add_task('predicting', total=len(loop.dataloader.dataset))
        self.progress.start()

    def before_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        for sample in data_batch.get('data_samples', ()):
            if not any(key.startswith('gt_') for key in sample.keys()):
                raise unlabelled(sample)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Outputs = None
    ) -> None:
        for sample in outputs or ():
            matrix, score = measure(sample, self.num_classes, self.ignore_index)
            self.confusion += matrix
            self.is_pixels = compares_pixels(sample)
            self._keep(score, sample)
            self.progress.advance(self.task)

    def _keep(self, score: float, sample: BaseDataElement) -> None:
        self._number += 1
        if math.isnan(score):
            return
        if 'pred_instances' in sample:
            shown = sample.pred_instances.scores >= SCORE_THR
            sample.pred_instances = sample.pred_instances[shown]
        heapq.heappush(self._kept, (-score, -self._number, sample.cpu()))
        if len(self._kept) > self.num_worst:
            heapq.heappop(self._kept)

    def close(self) -> None:
        self.progress.stop()

    def worst(self) -> list[tuple[float, BaseDataElement]]:
        return [(-negative, sample) for negative, _, sample in sorted(self._kept)[::-1]]
