"""The forms of the output, from tokens whose values tell where they lie."""

import pytest
import torch

from vit_backbones.readout import (
    FORMATTERS,
    POOLINGS,
    PoolingError,
    Readout,
    Tokens,
    cropped,
    featmap,
    gem,
)

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


# Readout


@pytest.mark.parametrize(
    ('options', 'factor'),
    [
        ({}, 1),
        (dict(cls_readout='concat'), 2),
        (dict(cls_readout='concat', out_type='raw'), 1),
        (dict(pool='cls+avg'), 2),
        (dict(pool='gem'), 1),
    ],
    ids=str,
)
def test_channels_are_those_of_what_is_formed(options, factor):
    readout = Readout(**options)
    assert readout.channels([4, 8]) == (4 * factor, 8 * factor)
    assert 4 * factor in readout.form(tokens(), (32, 48), (16, 16)).shape


def test_strides_are_ints_unless_patches_are_oblong():
    steps = [(4, 4), (16, 8)]
    assert Readout().strides(steps) == (4, (16, 8))
    assert Readout(out_stride=8).strides(steps) == (8, 8)


@pytest.mark.parametrize(
    ('norm', 'expected'), [('last', [False, True]), ('all', [True] * 2), ('none', [False] * 2)]
)
def test_norm_says_which_outputs_get_it(norm, expected):
    assert [Readout(norm=norm).norms(index, 2) for index in range(2)] == expected


def test_out_stride_counts_from_the_images_without_padding():
    maps = Readout(out_stride=4).form(tokens(), (30, 41), (16, 16))
    assert maps.shape == (2, 4, 8, 11)
    # columns of the patches, at (i + 0.5) * 4 / 16 - 0.5
    assert maps[0, 2, 0].tolist() == pytest.approx(
        [0, 0, 0.125, 0.375, 0.625, 0.875, 1.125, 1.375, 1.625, 1.875, 2]
    )


@pytest.mark.parametrize('options', [dict(pool='avg'), dict(out_type='avg_featmap')], ids=str)
def test_each_image_is_pooled_without_its_padding(options):
    readout = Readout(**options)
    (own, whole) = readout.form(tokens(), (32, 48), (16, 16), sizes=[(16, 17), (32, 48)])
    assert own.tolist() == [0, 0, 0.5, 1]
    assert torch.equal(whole, readout.form(tokens(), (32, 48), (16, 16))[1])


def test_each_image_is_resampled_without_its_padding():
    readout = Readout(out_stride=8)
    maps = readout.form(tokens(), (32, 48), (16, 16), sizes=[(16, 17), (32, 48)])
    own = readout.form(cropped(tokens(), (1, 2)), (16, 17), (16, 16))
    assert torch.equal(maps[0, :, :2, :3], own[0])
    assert not maps[0, :, 2:].any()
    assert not maps[0, :, :, 3:].any()


def test_maps_are_not_cropped_where_no_cells_are_mixed():
    maps = Readout().form(tokens(), (32, 48), (16, 16), sizes=[(16, 17), (32, 48)])
    assert torch.equal(maps, featmap(tokens()))


def test_attention_pooling_is_the_one_given():
    pooled = Readout(pool='attn').form(tokens(), (32, 48), (16, 16), attend=lambda t: t.patches[0])
    assert torch.equal(pooled, tokens().patches[0])


@pytest.mark.parametrize(
    ('options', 'kind'),
    [
        (dict(out_type='cls'), ValueError),
        (dict(cls_readout='add'), ValueError),
        (dict(pool='cls+avg'), PoolingError),
    ],
    ids=str,
)
def test_what_needs_a_cls_token_is_refused_without_one(options, kind):
    (name,) = options
    readout = Readout(**options)
    readout.check_cls_token('vit', True)
    with pytest.raises(ValueError, match=f'{name}=.* needs a CLS token, and .vit. has') as caught:
        readout.check_cls_token('vit', False)
    assert caught.type is kind


@pytest.mark.parametrize('name', ['out_type', 'pool', 'cls_readout', 'norm'])
def test_a_readout_of_unknown_values_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be one of .*got 'middle'"):
        Readout(**{name: 'middle'})
