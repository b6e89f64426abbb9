"""Where a training stands, and random numbers that depend on nothing else."""

import pytest
import torch
from eomt_models import training_at

from vit_backbones.heads import iteration
from vit_backbones.heads.iteration import Iteration


def test_a_training_is_known_by_mmengines_message_hub():
    training_at(7, 100, seed=3)
    assert Iteration.current() == (7, 100, 3)


def test_a_validation_comes_after_the_last_iteration():
    training_at(7, 100, seed=3, stage='val')
    assert Iteration.current() == (8, 100, 3)


@pytest.mark.parametrize('stage', ['test', None])
def test_tests_and_inference_after_a_training_have_no_iteration(stage):
    training_at(7, 100, stage=stage)
    assert Iteration.current() is None


@pytest.mark.parametrize(('number', 'total'), [(None, 100), (7, None)])
def test_without_both_numbers_there_is_none(number, total):
    training_at(number, total)
    assert Iteration.current() is None


def draws(done=5, seed=1, rank=0, *, monkeypatch=None):
    if monkeypatch:
        monkeypatch.setattr(iteration, 'get_rank', lambda: rank)
    generator = Iteration(done, 100, seed).generator(torch.device('cpu'))
    return torch.rand(4, generator=generator).tolist()


def test_draws_are_those_of_seed_iteration_and_process(monkeypatch):
    first = draws()
    torch.manual_seed(9)
    state = torch.get_rng_state()
    assert draws() == first
    assert torch.equal(torch.get_rng_state(), state)
    others = [
        draws(done=6),
        draws(seed=2),
        draws(seed=2**31 - 1),
        draws(rank=1, monkeypatch=monkeypatch),
    ]
    assert len({tuple(each) for each in (first, *others)}) == 5


def test_pairs_of_numbers_do_not_collide(monkeypatch):
    seen = {
        tuple(draws(done, seed, rank, monkeypatch=monkeypatch))
        for done in range(8)
        for seed in range(8)
        for rank in range(8)
    }
    assert len(seen) == 8**3
