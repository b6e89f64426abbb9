"""Sizes after resizing."""

import pytest

from vit_backbones.images import resizing, within


@pytest.mark.parametrize(
    ('sides', 'fixed', 'expected'),
    [
        (None, None, (50, 90)),
        ([100], None, (100, 180)),
        ([25], None, (25, 45)),
        ([64, 96], None, (64, 96)),
        (None, (224, 256), (224, 256)),
        ([224], (224, 224), (224, 224)),
    ],
    ids=str,
)
def test_sizes_after_resizing(sides, fixed, expected):
    assert resizing(sides, fixed)((50, 90)) == expected


def test_the_shorter_side_never_vanishes():
    assert resizing([8], None)((200, 12000)) == (8, 480)
    assert resizing([8], None)((1, 1)) == (8, 8)


@pytest.mark.parametrize('sides', [[0], [3, -1], [1, 2, 3]], ids=str)
def test_other_sizes_are_refused(sides):
    with pytest.raises(ValueError, match=r'size=\.\.\. takes the shorter side'):
        resizing(sides, None)


def test_a_size_that_the_model_does_not_take_is_refused():
    with pytest.raises(ValueError, match=r'size=64: the model takes only images of 224x256;'):
        resizing([64], (224, 256))


def test_the_longer_side__no_side_vanishes():
    assert within(512)((100, 200)) == (256, 512)
    assert within(64)((1, 12000)) == (1, 64)
