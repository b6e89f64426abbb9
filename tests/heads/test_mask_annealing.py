"""The schedule of the masks of attention, beside the steps of EoMT's released recipes."""

import re
from fractions import Fraction

import pytest

from vit_backbones.heads.mask_annealing import MaskAnnealing, Steps

TOTAL = 88704  # of COCO in 12 epochs with batches of 16, as 12 * 7392
SIXTH = TOTAL // 6


@pytest.mark.parametrize(
    ('num_blocks', 'starts'),
    [(3, [1, 2.5, 4]), (4, [1, 2, 3, 4]), (5, [1, 1.75, 2.5, 3.25, 4]), (1, [1]), (2, [1, 4])],
)
def test_the_default_is_the_released_steps(num_blocks, starts):
    steps = MaskAnnealing(num_blocks).steps(TOTAL)
    assert steps == [(start * SIXTH, (start + 1) * SIXTH) for start in starts]


@pytest.mark.parametrize('num_blocks', [1, 2, 3, 4, 5, 12])
@pytest.mark.parametrize('total', [1, 2, 3, 7, 100, 39153, 10**6])
def test_the_last_sixth_of_any_training_runs_without_masks(num_blocks, total):
    annealing = MaskAnnealing(num_blocks)
    off = annealing.off_from(total)
    assert off == max(round(Fraction(total * (2 if num_blocks == 1 else 5), 6)), 0)
    assert not any(annealing.keep(off, total))
    assert any(annealing.keep(off - 1, total))


def test_probabilities_fall_in_time_by_a_power_of_what_is_left():
    annealing, total = MaskAnnealing(4), 600
    keep = [annealing.keep(done, total) for done in (0, 100, 150, 199, 200, 250, 499, 500, 600)]
    half, last = 0.5**0.9, 0.01**0.9
    expected = [
        (1, 1, 1, 1),
        (1, 1, 1, 1),
        (half, 1, 1, 1),
        (last, 1, 1, 1),
        (0, 1, 1, 1),
        (0, half, 1, 1),
        (0, 0, 0, last),
        (0, 0, 0, 0),
        (0, 0, 0, 0),
    ]
    for found, wanted in zip(keep, expected, strict=True):
        assert found == pytest.approx(wanted, rel=1e-12)
    assert annealing.keep(500, total) == (0.0,) * 4  # exactly: no mask is made any more


def test_ints_are_iterations_and_floats_fractions_of_the_training():
    annealing = MaskAnnealing(4, [(0, 3000), None, (0.25, 0.5)])
    default = MaskAnnealing(4).steps(TOTAL)
    assert annealing.steps(TOTAL) == [(0, 3000), default[1], (TOTAL // 4, TOTAL // 2), default[3]]
    assert annealing.keep(1500, TOTAL)[0] == pytest.approx(0.5**0.9)
    assert annealing.steps(1000)[0] == Steps(0, 3000)  # beyond a short training, as given
    assert annealing.off_from(1000) == 3000


def test_a_span_without_length_ends_masks_at_once():
    annealing = MaskAnnealing(1, [(10, 10)])
    assert [annealing.keep(done, 20) for done in (9, 10)] == [(1.0,), (0.0,)]
    assert MaskAnnealing(1, [(0, 0)]).keep(0, 20) == (0.0,)


SPAN = (
    'annealing[{}] must be (start, end), each a fraction of the training in [0.0, 1.0] or an int '
    'of iterations, the start not behind the end; got {!r}'
)


@pytest.mark.parametrize(
    ('arguments', 'line'),
    [
        ((0,), 'num_blocks must be at least 1, got 0'),
        (
            (1, [None, None]),
            'annealing has 2 spans for num_blocks=1: give one a block at most',
        ),
        ((2, [None, (0.5, 0.25)]), SPAN.format(1, (0.5, 0.25))),
        ((2, [(5, 4)]), SPAN.format(0, (5, 4))),
        ((2, [(0.0, 1.5)]), SPAN.format(0, (0.0, 1.5))),
        ((2, [(-1, 5)]), SPAN.format(0, (-1, 5))),
        ((2, [(0, 5, 6)]), SPAN.format(0, (0, 5, 6))),
        ((2, [(False, 5)]), SPAN.format(0, (False, 5))),
        ((2, [('0', 5)]), SPAN.format(0, ('0', 5))),
        ((2, [0.1, 0.5]), SPAN.format(0, 0.1)),
        ((2, 3), 'annealing must be None or a list of (start, end), one a block, got 3'),
    ],
)
def test_wrong_spans_are_one_line(arguments, line):
    with pytest.raises(ValueError, match=f'^{re.escape(line)}$'):
        MaskAnnealing(*arguments)
