"""A line for a loss that jumps and for a metric that falls to nothing, none for what is normal."""

from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.logging import HistoryBuffer, MessageHub

from vit_backbones.training.curves_hook import VALIDATIONS
from vit_backbones.training.loss_watch_hook import LossWatchHook
from vit_backbones.training.non_finite import NonFiniteError


def lines(losses, names=lambda iteration: ('loss',)):
    """What is said in a training with these losses, in spans of ten."""
    said, hook = [], LossWatchHook(interval=10)
    hub, history = MessageHub(f'watch{id(said)}'), HistoryBuffer()
    hub._log_scalars = {'train/loss': history}
    for iteration, loss in enumerate(losses):
        history.update(loss)
        runner = SimpleNamespace(
            iter=iteration, message_hub=hub, logger=SimpleNamespace(warning=said.append)
        )
        outputs = dict.fromkeys(names(iteration), loss)
        hook.after_train_iter(runner, 0, outputs=outputs)
    return said


FALLING = list(np.linspace(4, 1, 50))


@pytest.mark.parametrize(
    ('losses', 'expected'),
    [
        (
            [*FALLING, *[30.0] * 10],
            'the loss jumped: 30 on average in iterations 51 to 60, and 2.5 before; if it stays '
            'there, lower the learning rate or clip gradients',
        ),
        (
            [*FALLING, *[1.0] * 9, 500.0, *[1.0] * 10],
            'the loss jumped: 50.9 on average in iterations 51 to 60, and 2.5 before; if it '
            'stays there, lower the learning rate or clip gradients',
        ),
        (
            [*FALLING, *[float('nan')] * 3, *[1.0] * 7],
            '3 of the 10 losses of iterations 51 to 60 are not finite',
        ),
    ],
)
def test_a_jump_is_one_line(losses, expected):
    assert lines(losses) == [expected]


def test_losses_that_stay_nan_stop_the_training():
    with pytest.raises(NonFiniteError) as error:
        lines([*FALLING, *[float('nan')] * 10])
    assert str(error.value) == ('no loss of iterations 51 to 60 is finite: lower the learning rate')


def test_what_is_normal_is_no_line():
    assert lines([*FALLING, *FALLING]) == []
    assert lines([5.0] * 10) == []
    # the head begins, with losses of its own
    two_parts = lambda iteration: ('loss', 'loss_cells') + ('loss_mask',) * (iteration >= 30)  # noqa: E731
    assert lines([1.0] * 30 + [40.0] * 30, two_parts) == []


@pytest.mark.parametrize(
    ('before', 'now', 'said'),
    [
        (
            52.0,
            0.0,
            ['mIoU fell to 0, and was 52.0 % after iteration 9: look at the losses since then'],
        ),
        (
            52.0,
            float('nan'),
            ['mIoU fell to nan, and was 52.0 % after iteration 9: look at the losses since then'],
        ),
        (0.0, 0.0, []),
        (52.0, 1.0, []),
    ],
)
def test_a_metric_that_falls_to_nothing_is_a_line(before, now, said):
    hub, got = MessageHub(f'fell{before}{now}'), []
    hub.update_info(VALIDATIONS, [dict(epoch=3, iter=9, metrics=dict(mIoU=before))])
    runner = SimpleNamespace(message_hub=hub, logger=SimpleNamespace(warning=got.append))
    LossWatchHook().after_val_epoch(runner, dict(mIoU=now))
    assert got == said


@pytest.mark.parametrize('given', [dict(interval=0), dict(factor=1.0), dict(factor='5')])
def test_nonsense_is_refused(given):
    with pytest.raises((ValueError, TypeError), match=next(iter(given))):
        LossWatchHook(**given)
