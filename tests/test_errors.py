"""Words of messages: counts, and the first few of many."""

import itertools

import pytest

from vit_backbones.errors import counted, some


@pytest.mark.parametrize(
    ('number', 'noun', 'words'),
    [
        (0, 'image', '0 images'),
        (1, 'batch', '1 batch'),
        (2, 'batch', '2 batches'),
        (2, 'class', '2 classes'),
        (2, 'val image', '2 val images'),
    ],
)
def test_nouns_follow_their_number(number, noun, words):
    assert counted(number, noun) == words


@pytest.mark.parametrize(
    ('things', 'most', 'words'),
    [
        ([], 3, 'none'),
        ([1], 3, '1'),
        (['a', 'b', 'c'], 3, 'a, b, c'),
        ('abcd', 3, 'a, b, c, ...'),
        ((each for each in 'abcd'), 1, 'a, ...'),
    ],
)
def test_some_shows_the_first_few(things, most, words):
    assert some(things, most) == words


def test_some_reads_one_more_than_it_shows():
    things = itertools.count()
    assert some(things) == '0, 1, 2, ...'
    assert next(things) == 4
