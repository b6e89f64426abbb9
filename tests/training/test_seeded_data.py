"""A sample depends on the seed, the epoch and its index, whoever loads it."""

import random

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import ConcatDataset, DataLoader

from vit_backbones.training.last_checkpoint import EPOCH_ITERS, position
from vit_backbones.training.seeded_data import seed_samples, seeded


class Drawn:
    """Seven samples: their index, and a number of each generator."""

    def __len__(self):
        return 7

    def __getitem__(self, index):
        return [index, random.random(), np.random.rand(), float(torch.rand(()))]


def loader(sampler='epochs', dataset=None, workers=0, seed=3, **position):
    dataset = dataset or Drawn()
    kind = DefaultSampler if sampler == 'epochs' else InfiniteSampler
    built = DataLoader(
        dataset,
        batch_size=2,
        sampler=kind(dataset, seed=5),
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=list,
    )
    seed_samples(built, seed, **position)
    return built


def epochs(built, number):
    found = []
    for epoch in range(number):
        built.sampler.set_epoch(epoch)
        found.append(list(built))
    return found


def stream(built, number):
    batches = iter(built)
    return [next(batches) for _ in range(number)]


def test_workers_and_earlier_draws_change_nothing():
    expected = epochs(loader(), 2)
    assert [len(batches) for batches in expected] == [4, 4]
    torch.rand(5), np.random.rand(5), random.random()
    assert epochs(loader(), 2) == expected
    assert epochs(loader(workers=2), 2) == expected
    assert epochs(loader(seed=4), 2) != expected


def test_an_image_gets_another_augmentation_in_each_epoch():
    first, second = ({s[0]: s[1:] for batch in each for s in batch} for each in epochs(loader(), 2))
    assert sorted(first) == sorted(second) == list(range(7))
    assert all(len(set(first[index] + second[index])) == 6 for index in range(7))


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize(('epoch', 'skip'), [(0, 0), (0, 3), (1, 1), (1, 4), (2, 0)])
def test_it_goes_on_where_it_stopped(epoch, skip, workers):
    expected = epochs(loader(), 4)
    rest = loader(workers=workers, epoch=epoch, skip=skip)
    assert list(rest) == expected[epoch][skip:]
    rest.sampler.set_epoch(epoch + 1)
    assert list(rest) == expected[epoch + 1]


def test_an_endless_sampler_begins_an_epoch_with_each_pass():
    expected = stream(loader('endless'), 12)
    assert stream(loader('endless', workers=2), 12) == expected
    assert stream(loader('endless', skip=5), 7) == expected[5:]
    samples = [sample for batch in expected for sample in batch]
    assert len({tuple(sample[1:]) for sample in samples}) == len(samples)


def test_datasets_of_datasets():
    both = ConcatDataset([Drawn(), Drawn()])
    expected = epochs(loader(dataset=both), 1)
    assert epochs(loader(dataset=both, workers=1), 1) == expected
    assert len({sample[1] for batch in expected[0] for sample in batch}) == 14


def test_generators_go_on_as_before():
    def draw():
        return random.random(), np.random.rand(), float(torch.rand(()))

    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    expected = [draw(), draw()]
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    first = draw()
    with seeded(1, 2, 3):
        inside = draw()
    assert [first, draw()] == expected
    with seeded(1, 2, 3):
        assert draw() == inside


@pytest.mark.parametrize(
    ('sampler', 'by_epoch', 'meta', 'expected'),
    [
        ('epochs', True, dict(epoch=2, iter=8), (2, 0)),
        ('epochs', True, dict(epoch=2, iter=11), (2, 3)),
        ('epochs', True, dict(epoch=2, iter=12), (2, 4)),  # the epoch's end is still to come
        ('epochs', False, dict(epoch=0, iter=11), (2, 3)),
        ('endless', False, dict(epoch=0, iter=11), (0, 11)),
        # batches of another size
        ('epochs', True, {'epoch': 2, 'iter': 16, EPOCH_ITERS: 8}, (2, 0)),
        ('epochs', True, {'epoch': 2, 'iter': 19, EPOCH_ITERS: 8}, (2, 0)),
        ('epochs', True, {'epoch': 2, 'iter': 24, EPOCH_ITERS: 8}, (2, 4)),
        ('epochs', False, {'epoch': 0, 'iter': 17, EPOCH_ITERS: 8}, (2, 0)),
    ],
)
def test_a_checkpoint_shows_where_it_stands(sampler, by_epoch, meta, expected, tmp_path):
    torch.save(dict(meta=meta, state_dict={}), tmp_path / 'a.pth')
    assert position(tmp_path / 'a.pth', loader(sampler), by_epoch=by_epoch) == expected
