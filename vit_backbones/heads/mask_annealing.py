"""How the masks of EoMT's attention go in the course of a training: a function of the iteration."""

from collections.abc import Sequence
from fractions import Fraction
from numbers import Integral, Real
from typing import NamedTuple

from vit_backbones.arguments import integer

Moment = int | float | Fraction
Span = tuple[Moment, Moment]


class Steps(NamedTuple):
    """Iterations in which the masks of a block go: before `start` all are kept, from `end` none."""

    start: int
    end: int


class MaskAnnealing:
    """The probability to keep a query's mask, for each block with queries.

    It is 1 before a block's span, 0 behind it, and (1 - progress) ** power within. By default the
    spans are those of EoMT's released recipes: of i = 0 .. blocks - 1 starts at the fraction
    1/6 + i/2/(blocks - 1) of the training and takes a sixth, so that the last sixth runs without
    masks, as inference does.

    Args:
        num_blocks: Blocks with queries, at least 1.
        spans: (start, end) of the first blocks; `None`, and blocks beyond, have the default. Floats
            are fractions of the training, ints are iterations, as in MMEngine's schedules: with
            `accumulative_counts=k` they are k for each step of the optimizer.
        power: Of the polynomial.
    """

    def __init__(
        self, num_blocks: int, spans: Sequence[Span | None] | None = None, power: float = 0.9
    ) -> None:
        self.num_blocks, self.power = integer('num_blocks', num_blocks, 1), power
        if not isinstance(spans, Sequence | None) or isinstance(spans, str):
            raise ValueError(
                f'annealing must be None or a list of (start, end), one a block, got {spans!r}'
            )
        given = list(spans or ())
        if len(given) > num_blocks:
            raise ValueError(
                f'annealing has {len(given)} spans for num_blocks={num_blocks}: give one a block '
                f'at most'
            )
        given += [None] * (num_blocks - len(given))
        self.spans = [self._span(block, span) for block, span in enumerate(given)]

    def steps(self, total: int) -> list[Steps]:
        """The span of each block in a training of `total` iterations."""
        return [Steps(*(_iteration(each, total) for each in span)) for span in self.spans]

    def keep(self, done: int, total: int) -> tuple[float, ...]:
        """The probability of each block after `done` iterations of `total`."""
        return tuple(self._kept(done, span) for span in self.steps(total))

    def off_from(self, total: int) -> int:
        """The first iteration without any masks; it may lie beyond the training."""
        return max(span.end for span in self.steps(total))

    def _kept(self, done: int, span: Steps) -> float:
        if done >= span.end:
            return 0.0
        if done < span.start:
            return 1.0
        return (1 - (done - span.start) / (span.end - span.start)) ** self.power

    def _span(self, block: int, given: Span | None) -> Span:
        if given is None:
            start = Fraction(1, 6) + Fraction(block, 2 * max(self.num_blocks - 1, 1))
            return start, start + Fraction(1, 6)
        span = tuple(given) if isinstance(given, Sequence) else ()
        if len(span) != 2 or not all(map(_is_moment, span)) or _reversed(*span):
            raise ValueError(
                f'annealing[{block}] must be (start, end), each a fraction of the training in '
                f'[0.0, 1.0] or an int of iterations, the start not behind the end; got {given!r}'
            )
        return span


def _is_moment(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return 0 <= value if isinstance(value, Integral) else 0 <= value <= 1


def _reversed(start: Moment, end: Moment) -> bool:
    alike = isinstance(start, Integral) == isinstance(end, Integral)
    return alike and start > end


def _iteration(moment: Moment, total: int) -> int:
    return int(moment) if isinstance(moment, Integral) else round(moment * total)
