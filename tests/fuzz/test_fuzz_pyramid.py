"""Any arguments and inputs of the pyramid."""

import math

import pytest
import torch
from fuzzing import NONSENSE, Fuzz, is_finite, one
from hypothesis import strategies as st

from vit_backbones.necks import SimpleFeaturePyramid

STRIDES = st.lists(one(1, 2, 4, 8, 16, 32, 64), min_size=1, max_size=5, unique=True)
LEGAL = dict(
    in_channels=one(8, 16, 17, 24, [16], (32,), [8, 8, 16, 16], [16] * 4),
    out_channels=one(1, 4, 8),
    backbone_channel=st.none() | one(16, 32),
    in_strides=one(4, 8, 16, 32, [16], [4, 8, 16, 32], [16] * 4, (8, 16), 14),
    out_strides=STRIDES | STRIDES.map(tuple),
    num_outs=st.none() | st.integers(1, 7),
    norm_cfg=one(
        *(None, dict(type='LN2d'), dict(type='BN'), dict(type='GN', num_groups=1)),
        *(dict(type='GN', num_groups=3), dict(type='LN2d', eps=1e-3), dict(type='SyncBN')),
        *(dict(type='No'), dict(type='BN', no=1), dict(num_groups=1), dict(type=None)),
        *(dict(type='Conv2d'), dict(type='BN1d'), dict(type='LN2d', eps='x')),
    ),
    act_cfg=one(
        *(None, dict(type='ReLU'), dict(type='GELU'), dict(type='No'), dict()),
        *(dict(type='ReLU', x=1), dict(type='Tanh')),
    ),
    init_cfg=st.none(),
)

MATCHED = one(
    *(dict(in_channels=16), dict(in_channels=[17]), dict(in_channels=32, in_strides=8)),
    *(dict(in_channels=[16] * 4), dict(in_channels=8, in_strides=(4, 8, 16, 32))),
    dict(in_channels=[16, 8], in_strides=(8, 16), out_strides=[4, 64]),
)


@st.composite
def calls(draw):
    """Arguments of the class, one in two with something wrong, and the sizes of an input."""
    names = draw(st.sets(one(*LEGAL), max_size=2))
    given = draw(MATCHED) | {name: draw(LEGAL[name]) for name in sorted(names)}
    if draw(st.integers(0, 3)) == 0:
        given[draw(one(*LEGAL))] = draw(NONSENSE)
    sides = [draw(one(1, 2, 3, 7, 16)) for _ in 'hw']
    shape = [draw(one(0, 1, 2)), *sides]
    return given, shape, draw(one(*['fits'] * 30, *WRONG_INPUTS))


WRONG_INPUTS = ['tensor', 'channels', 'rank', 'number', 'None', 'double', 'ints', 'no side', 'list']


def inputs_for(neck, shape, how):
    """Maps that a pyramid takes, or that it does not."""
    batch, rows, columns = shape
    coarsest, dtype = max(neck.in_strides), torch.float32
    sizes = [(coarsest // s * rows, coarsest // s * columns) for s in neck.in_strides]
    if how == 'no side':
        sizes = [(0, columns)] * len(sizes)
    dtype = dict(double=torch.float64, ints=torch.int64).get(how, dtype)
    more = how == 'channels'
    maps = [
        torch.ones(batch, channels + more, *size, dtype=dtype)
        for channels, size in zip(neck.in_channels, sizes, strict=True)
    ]
    wrong = {
        'tensor': maps[0],
        'rank': [each.flatten(2) for each in maps],
        'number': maps[1:],
        'None': None,
        'list': [each.tolist() for each in maps],
    }
    return wrong.get(how, tuple(maps))


def attempt(drawn):
    given, shape, how = drawn
    neck = SimpleFeaturePyramid(**given).eval()
    maps = neck(inputs_for(neck, shape, how))
    assert how == 'fits'
    number = len(given.get('out_strides', (4, 8, 16, 32)))
    assert len(maps) == len(neck.strides) == (given.get('num_outs') or number)
    coarsest = max(neck.in_strides)
    for stride, each in zip(neck.strides, maps, strict=True):
        size = [math.ceil(side * coarsest / stride) for side in shape[1:]]
        assert tuple(each.shape) == (shape[0], given.get('out_channels', 256), *size)
        assert each.dtype == torch.float32
        assert is_finite(each)


def test_any_arguments_and_maps_of_a_pyramid():
    assert Fuzz(attempt).run(calls()) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_arguments_and_maps_of_a_pyramid():
    assert Fuzz(attempt).run(calls(), slow=True) == []
