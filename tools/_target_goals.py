"""What a case of `make bench` compares, and the goals that it judges."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import nn

from vit_backbones.benchmark.subjects import Setting, Subject
from vit_backbones.benchmark.training_step import TrainingStep

Measured = Subject | TrainingStep
Build = Callable[['Case'], nn.Module | Measured]


class Goal(NamedTuple):
    """The ratio of two candidates' figures, at most `bound` if not `at_least`.

    Attributes:
        under: `None`: the figure of `over` itself is bounded.
        figure: A key of `_targets.FIGURES`, or beside one of them `'gradients'`: their largest
            difference over the largest of them.
        allowance: Part of `bound` by which the ratio may miss it.
        unit: Of a figure that is no ratio.
    """

    over: str
    under: str | None
    bound: float
    at_least: bool = False
    figure: str = 'time'
    allowance: float = 0.0
    unit: str = ''

    def verdict(self, ratio: float) -> str:
        """`'pass'` or `'miss'`."""
        if self.at_least:
            return 'pass' if ratio >= self.bound * (1 - self.allowance) else 'miss'
        return 'pass' if ratio <= self.bound * (1 + self.allowance) else 'miss'

    @property
    def target(self) -> str:
        """The goal in words."""
        noise = f' ({self.allowance:.0%} for noise)' if self.allowance else ''
        unit = f' {self.unit}' if self.unit else ''
        return f'at {"least" if self.at_least else "most"} {self.bound:.3g}{unit}{noise}'

    @property
    def compared(self) -> str:
        """What is bounded, in words."""
        return f'{self.figure}, {self.over}' + (f' / {self.under}' if self.under else '')


class Case(NamedTuple):
    """Candidates that one run compares, and the ratios that their figures must reach.

    Attributes:
        utilisation: Whether to report how much of the GPU each candidate's arithmetic uses.
    """

    what: str
    model: str
    setting: Setting
    candidates: Mapping[str, Build]
    goals: tuple[Goal, ...]
    repeats: int = 7
    utilisation: bool = False
