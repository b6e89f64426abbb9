"""Standard errors of mAP and mIoU over the images of a test, by the bootstrap."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, Runner

from vit_backbones.arguments import integer
from vit_backbones.metrics import STANDARD_ERROR
from vit_backbones.terminal import quiet_prints

if TYPE_CHECKING:
    from pycocotools.cocoeval import COCOeval

_MAX_DETS = 100  # of COCO's mAP


@HOOKS.register_module()
class BootstrapHook(Hook):
    """Add the standard error over images to the metrics of a test: `mIoU_se`, `segm_mAP_se`.

    The images of the test are drawn with replacement, as many as there are, and the metric is
    computed from each draw; its deviation over draws is the standard error (Efron, 1979). It is in
    the metric's own unit. The model does not run again. `IoUMetric` of mmseg and `CocoMetric` of
    mmdet (mAP over all areas, of 100 objects an image) are known.

    Args:
        draws: How many draws, at least 2.
        seed: Of the draws.

    Raises:
        ValueError: No metric of the evaluator is known.
    """

    def __init__(self, draws: int = 200, seed: int = 0) -> None:
        self.draws, self.seed = integer('draws', draws, 2), integer('seed', seed, 0)

    def before_run(self, runner: Runner) -> None:
        """Watch the metrics of a test."""
        loop = runner._test_loop  # `test_loop` would build it for a training
        if not isinstance(loop, BaseLoop):
            return
        metrics = loop.evaluator.metrics
        known = [(each, kind) for each in metrics for kind in type(each).__mro__ if _errors(kind)]
        if not known:
            names = ', '.join(type(each).__name__ for each in metrics)
            raise ValueError(
                f'standard errors over images are known for {" and ".join(KNOWN)}, and '
                f'test_evaluator has {names}: test without them'
            )
        for metric, kind in known:
            if getattr(metric, 'use_mp_eval', False):
                raise ValueError(
                    'use_mp_eval=True of CocoMetric keeps nothing of single images: '
                    'set test_evaluator.use_mp_eval=False for standard errors'
                )
            if 'compute_metrics' not in vars(metric):  # watched already
                self._watch(metric, kind)

    def _watch(self, metric: BaseMetric, kind: type) -> None:
        whole = metric.compute_metrics

        def compute(results: list[Any]) -> dict[str, float]:
            with _kept_evaluations(kind.compute_metrics.__globals__) as kept, quiet_prints():
                values = whole(results)
                drawn = np.random.default_rng(self.seed)
                found = _errors(kind)(results if kept is None else kept, drawn, self.draws)
            return values | {
                name + STANDARD_ERROR: each for name, each in found.items() if name in values
            }

        metric.compute_metrics = compute


@contextmanager
def _kept_evaluations(names: dict[str, Any]) -> Iterator['list[COCOeval] | None']:
    """Keep the evaluations that a module makes by a `COCOeval` among its names; `None` without."""
    stock = names.get('COCOeval')
    if stock is None:
        yield None
        return
    kept = []

    class Kept(stock):
        def summarize(self) -> None:
            super().summarize()
            kept.append(self)

    names['COCOeval'] = Kept
    try:
        yield kept
    finally:
        names['COCOeval'] = stock


def iou_errors(results: list[Any], drawn: np.random.Generator, draws: int) -> dict[str, float]:
    """Standard error of the mIoU in percent.

    `results` has a tuple for each image, as `IoUMetric.intersect_and_union` gives it: pixels of
    each class in the intersection, then in the union.
    """
    areas = np.stack([[each.double().numpy() for each in image[:2]] for image in results])
    counts = _counts(len(areas), drawn, draws)
    intersection, union = np.einsum('di,ipc->pdc', counts, areas)
    with np.errstate(invalid='ignore'):
        means = 100 * np.nanmean(intersection / union, axis=1)
    return dict(mIoU=float(means.std(ddof=1)))


def coco_errors(kept: 'list[COCOeval]', drawn: np.random.Generator, draws: int) -> dict[str, float]:
    """Standard error of the mAP of boxes and of masks, 0 to 1, from finished evaluations."""
    found = {}
    for each in kept:
        pictures = [drawn.integers(n, size=n) for n in [len(each.params.imgIds)] * draws]
        values = [average_precision(each, images) for images in pictures]
        found[f'{each.params.iouType}_mAP'] = float(np.std(values, ddof=1))
    return found


def average_precision(evaluation: 'COCOeval', images: np.ndarray) -> float:
    """The mAP of a finished evaluation on some of its images, by index, which may come again."""
    parameters = copy.copy(evaluation.params)
    number = len(parameters.imgIds)
    ranges, classes = len(parameters.areaRng), len(parameters.catIds) if parameters.useCats else 1
    parameters.areaRng, parameters.maxDets = parameters.areaRng[:1], [_MAX_DETS]  # the first is all
    parameters.imgIds = list(range(len(images)))
    drawn = copy.copy(evaluation)
    drawn.params = drawn._paramsEval = parameters
    every = evaluation.evalImgs
    drawn.evalImgs = [every[k * ranges * number + i] for k in range(classes) for i in images]
    drawn.accumulate()
    precision = drawn.eval['precision']
    return float(precision[precision > -1].mean()) if (precision > -1).any() else -1.0


def _counts(images: int, drawn: np.random.Generator, draws: int) -> np.ndarray:
    """How often each image comes in each draw, (draws, images)."""
    return drawn.multinomial(images, np.full(images, 1 / images), size=draws)


KNOWN = {'IoUMetric': iou_errors, 'CocoMetric': coco_errors}


def _errors(kind: type) -> Callable[..., dict[str, float]] | None:
    """What computes the standard errors of a class of metrics."""
    return KNOWN.get(kind.__name__)
