"""A linear probe in closed form: ridge regression of each pixel's class on patch features.

The scores of a pixel are those of the cells around it, interpolated bilinearly. Least squares over
pixels, each weighted by its class, then need no pixel's features: with B the interpolation, D the
weights, F the features of the cells and Y the classes of the pixels, the normal equations are
F'(B'DB)F and F'(B'DY), and B'DB joins each cell only with its eight neighbours.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from mmseg.evaluation.metrics import IoUMetric
from torch import Tensor

from vit_backbones.benchmark.labelled import IGNORED
from vit_backbones.own_data.common import hold_out
from vit_backbones.position import bilinear_weights

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # on squared coefficients, per unit of pixel weight
POWER = 0.5  # a pixel weighs frequency ** -POWER of its class


class Sample(NamedTuple):
    """Features (C, h, w) float32 of an image, and labels (H, W), `IGNORED` where they do not count.

    `steps` are height and width of a cell in pixels of `labels`; cells start at the upper left.
    """

    features: Tensor
    labels: Tensor
    steps: tuple[float, float]

    @property
    def interpolation(self) -> tuple[Tensor, Tensor]:
        """Weights of each cell in each pixel: (H, h) of rows, (W, w) of columns."""
        sides = zip(self.labels.shape, self.features.shape[1:], self.steps, strict=True)
        weights = (bilinear_weights(pixels, cells, 1 / step) for pixels, cells, step in sides)
        return tuple(each.to(self.features) for each in weights)


class Readable(Protocol):
    """An image whose sample is read when it is needed."""

    def read(self) -> Sample:
        """Read it."""


class Scale(NamedTuple):
    """Standardises features by their mean and standard deviation, (C, 1, 1) each."""

    mean: Tensor
    std: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Standardise (C, h, w), and add ones for the bias: (C + 1, h, w)."""
        scaled = (features - self.mean) / self.std
        return torch.cat([scaled, torch.ones_like(scaled[:1])])


class Equations(NamedTuple):
    """Normal equations of weighted least squares: (C + 1, C + 1) and (C + 1, classes) float64."""

    matrix: Tensor
    right: Tensor

    def solved(self, penalty: float) -> Tensor:
        """Coefficients (C + 1, classes), the bias last and without a penalty."""
        added = torch.full_like(self.matrix[0], penalty * float(self.matrix[-1, -1]))
        added[-1] = 0
        factor = torch.linalg.cholesky(self.matrix + added.diag())
        return torch.cholesky_solve(self.right, factor)


class Fitted(NamedTuple):
    """A linear probe: `coefficients` (C + 1, classes), and the best penalty on held-out images."""

    scale: Scale
    coefficients: Tensor
    penalty: float


def fit(train: Sequence[Readable], num_classes: int) -> Fitted:
    """Fit a linear probe on two images or more; the penalty is chosen on every fifth, held out."""
    kept, held = hold_out(train)
    scale, counts = _survey(train, num_classes)
    weights = class_weights(counts)
    sums = [equations(part, scale, weights) for part in (kept, held)]
    tried = [sums[0].solved(penalty) for penalty in PENALTIES]
    reached = [float(iou.nanmean()) for iou in test(held, scale, tried)]
    penalty = PENALTIES[reached.index(max(reached))]
    both = Equations(*(kept + held for kept, held in zip(*sums, strict=True)))
    return Fitted(scale, both.solved(penalty), penalty)


def class_weights(counts: Tensor) -> Tensor:
    """Weight of a pixel of each class, 1 for the mean pixel, from the pixels of each class."""
    weights = torch.where(counts > 0, counts.double().clamp(min=1) ** -POWER, 0)
    return (weights * counts.sum() / (weights * counts).sum()).float()


def equations(items: Sequence[Readable], scale: Scale, weights: Tensor) -> Equations:
    """Sum the normal equations of images, with a weight per class."""
    size = len(scale.mean) + 1
    matrix = torch.zeros(size, size, dtype=torch.float64, device=weights.device)
    right = torch.zeros(size, len(weights), dtype=torch.float64, device=weights.device)
    for item in items:
        sample = item.read()
        features = scale(sample.features)
        rows, columns = sample.interpolation
        classes = torch.arange(len(weights), device=weights.device)[:, None, None]
        pixels = (sample.labels == classes) * weights[:, None, None]  # (classes, H, W)
        targets = torch.einsum('yi,kyx,xj->kij', rows, pixels, columns)
        joined = torch.einsum(
            'ayi,yx,bxj->abij', _overlaps(rows), pixels.sum(0), _overlaps(columns)
        )
        around = F.pad(features, (1, 1, 1, 1)).unfold(1, 3, 1).unfold(2, 3, 1)  # (C, h, w, 3, 3)
        weighted = torch.einsum('cijab,abij->cij', around, joined)
        matrix += features.flatten(1) @ weighted.flatten(1).T
        right += features.flatten(1) @ targets.flatten(1).T
    return Equations(matrix, right)


def test(items: Iterable[Readable], scale: Scale, coefficients: Sequence[Tensor]) -> list[Tensor]:
    """IoU of each class, as mmseg's `IoUMetric` has it, for each of several probes.

    Gives (classes,) per probe, 0 to 1; NaN for a class that is neither there nor predicted.
    """
    areas: list[Tensor | int] = [0] * len(coefficients)
    for item in items:
        sample = item.read()
        features = scale(sample.features)
        for i, each in enumerate(coefficients):
            predicted = predict(features, each, sample).to(torch.uint8).cpu()
            area = IoUMetric.intersect_and_union(
                predicted, sample.labels.cpu(), each.shape[1], IGNORED
            )
            areas[i] += torch.stack(area[:2]).double()  # counts beyond float32's integers
    return [intersection / union for intersection, union in areas]


def predict(features: Tensor, coefficients: Tensor, sample: Sample) -> Tensor:
    """The class of each pixel, (H, W), from scaled features (C + 1, h, w)."""
    rows, columns = sample.interpolation
    scores = torch.einsum('cij,ck->kij', features, coefficients.to(features))
    return torch.einsum('yi,kij,xj->kyx', rows, scores, columns).argmax(0)


def _survey(items: Iterable[Readable], num_classes: int) -> tuple[Scale, Tensor]:
    """Mean and standard deviation of the features, and the pixels of each class."""
    sums = counts = cells = 0
    for item in items:
        features, labels, _ = item.read()
        values = features.flatten(1).double()
        sums = sums + torch.stack([values.sum(1), values.square().sum(1)])
        cells += values.shape[1]
        counts = counts + torch.bincount(labels.flatten().long(), minlength=256)[:num_classes]
    if not counts.sum():
        raise ValueError('the masks to train on have no pixel that counts')
    mean, square = sums / cells
    std = (square - mean.square()).clamp(min=1e-12).sqrt()
    return Scale(*(each.float()[:, None, None] for each in (mean, std))), counts


def _overlaps(given: Tensor) -> Tensor:
    """(pixels, cells) times that of the cell before, the same, the cell after: (3, ...)."""
    padded = F.pad(given, (1, 1))
    return torch.stack([given * padded[:, i : i + given.shape[1]] for i in range(3)])
