"""The forms of the output, from tokens whose values tell where they lie."""

import pytest
import torch

from vit_backbones.readout import FORMATTERS, POOLINGS, Tokens, featmap, gem

GRID = (2, 3)


def tokens(num_prefix=2):
    """Patch (row, column) of image b holds (b, row, column, 1); prefix token p holds -1 - p."""
    patches = [[b, row, column, 1] for b in (0, 1) for row in range(2) for column in range(3)]
    prefix = -1.0 - torch.arange(num_prefix)[None, :, None].expand(2, num_prefix, 4)
    return Tokens(torch.tensor(patches).float().reshape(2, 6, 4), prefix, GRID)


def test_featmap_puts_each_patch_at_its_row_and_column():
    maps = featmap(tokens())
    assert maps.shape == (2, 4, *GRID)
    for b, row, column in [(0, 0, 2), (1, 1, 0), (1, 0, 1)]:
        assert maps[b, :, row, column].tolist() == [b, row, column, 1]


def test_featmap_adds_the_cls_token_not_a_register():
    assert torch.equal(featmap(tokens(), 'add'), featmap(tokens()) - 1)


def test_featmap_puts_the_cls_token_behind_the_channels():
    maps = featmap(tokens(), 'concat')
    assert torch.equal(maps[:, :4], featmap(tokens()))
    assert torch.equal(maps[:, 4:], torch.full((2, 4, *GRID), -1.0))


@pytest.mark.parametrize('name', ['cls', 'cls_token'])
def test_cls_is_the_first_prefix_token(name):
    assert torch.equal(FORMATTERS[name](tokens()), torch.full((2, 4), -1.0))


@pytest.mark.parametrize('num_prefix', [0, 1, 5])
def test_raw_is_prefix_then_patches(num_prefix):
    given = tokens(num_prefix)
    out = FORMATTERS['raw'](given)
    assert out.shape == (2, num_prefix + 6, 4)
    assert torch.equal(out[:, :num_prefix], given.prefix)
    assert torch.equal(out[:, num_prefix:], given.patches)


def test_avg_featmap_is_the_mean_of_patches_alone():
    expected = [[b, 0.5, 1, 1] for b in (0, 1)]
    assert FORMATTERS['avg_featmap'](tokens()).tolist() == expected


# Pooling


def column(*values, cls=5.0):
    """One image of one channel: a CLS token and patches of given values."""
    return Tokens(torch.tensor(values)[None, :, None], torch.full((1, 1, 1), cls), (1, len(values)))


@pytest.mark.parametrize(
    ('pool', 'expected'),
    [
        ('cls', [5.0]),
        ('avg', [0.5]),
        ('max', [3.0]),
        ('cls+avg', [5.0, 0.5]),
        # -2 counts as 1e-6: (27 + 1) / 3
        ('gem', [(28 / 3) ** (1 / 3)]),
    ],
)
def test_pooling_by_hand(pool, expected):
    pooled = POOLINGS[pool](column(-2.5, 3.0, 1.0))
    torch.testing.assert_close(pooled, torch.tensor([expected]))


@pytest.mark.parametrize('pool', POOLINGS)
def test_pooling_keeps_images_and_channels_apart(pool):
    whole, wide = tokens(), 2 if pool == 'cls+avg' else 1
    pooled = POOLINGS[pool](whole)
    assert pooled.shape == (2, 4 * wide)
    one = Tokens(whole.patches[1:, :, 2:3], whole.prefix[1:, :, 2:3], GRID)
    assert torch.equal(POOLINGS[pool](one)[0], pooled[1, 2::4])


def test_gem_of_half_tokens_does_not_overflow():
    loud = column(100.0, 100.0)
    pooled = gem(loud._replace(patches=loud.patches.half()))
    assert pooled.item() == pytest.approx(100, rel=1e-3)


@pytest.mark.parametrize(('power', 'expected'), [(1.0, 2.0), (50.0, 3.0)])
def test_gem_lies_between_the_mean_and_the_maximum(power, expected):
    assert gem(column(1.0, 2.0, 3.0), power).item() == pytest.approx(expected, rel=0.03)
