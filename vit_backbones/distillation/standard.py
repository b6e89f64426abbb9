"""What a sample of features shows: the scale of each channel, and how far one predicts another."""

import torch
from torch import Tensor, nn


class Sample:
    """Means and products of features (..., c) and of others at the same places (..., d).

    Sums are taken in float64 on the CPU, so that no more than a batch is ever held.
    """

    def __init__(self) -> None:
        self.count = 0
        self.sums: list[Tensor] = []

    def add(self, one: Tensor, other: Tensor) -> None:
        """Count the features of a batch."""
        one, other = (each.detach().cpu().double().flatten(0, -2) for each in (one, other))
        new = [one.sum(0), other.sum(0), one.T @ one, one.T @ other, other.square().sum(0)]
        self.sums = [a + b for a, b in zip(self.sums, new, strict=True)] if self.count else new
        self.count += len(one)

    @property
    def means(self) -> tuple[Tensor, Tensor]:
        """Of each channel, (c,) and (d,)."""
        return self.sums[0] / self.count, self.sums[1] / self.count

    @property
    def deviations(self) -> tuple[Tensor, Tensor]:
        """Of each channel, (c,) and (d,); 1 for a channel that is constant."""
        squares = self.sums[2].diagonal(), self.sums[4]
        pairs = zip(squares, self.means, strict=True)
        return tuple(_deviation(square / self.count, mean) for square, mean in pairs)

    def regression(self) -> Tensor:
        """Weights (d, c) by which the first features, both standardised, predict the second best.

        Ridge regression with a penalty of channels by samples, as Hoerl, Kennard and Baldwin, Ridge
        Regression: Some Simulations, 1975, have it for as much signal as noise.
        """
        (mean, other_mean), (scale, other_scale) = self.means, self.deviations
        own = (self.sums[2] / self.count - mean.outer(mean)) / scale.outer(scale)
        cross = self.sums[3] / self.count - mean.outer(other_mean)
        penalty = torch.eye(len(mean), dtype=own.dtype) * (len(mean) / self.count)
        return torch.linalg.solve(own + penalty, cross / scale.outer(other_scale)).T


def _deviation(square: Tensor, mean: Tensor) -> Tensor:
    """Of channels with these means of squares; what is left by rounding is none."""
    variance = square - mean.square()
    return torch.where(variance > 1e-10 * square, variance, 1.0).sqrt()


class Standard(nn.Module):
    """Takes its mean from each channel, and divides by its deviation; both are in the state dict.

    Args:
        channels: How many.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer('mean', torch.zeros(channels))
        self.register_buffer('deviation', torch.ones(channels))

    def forward(self, features: Tensor) -> Tensor:
        """Standardise (..., C), in float32."""
        return (features.float() - self.mean) / self.deviation

    def set(self, mean: Tensor, deviation: Tensor) -> None:
        """Take those of a sample."""
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)
