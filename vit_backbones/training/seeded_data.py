"""Samples that depend on the seed, the epoch and their index only, whatever was drawn before.

So a resumed training, one with other workers, and several processes in place of one get the same
augmentations, and no checkpoint has to hold the state of a generator.
"""

import contextlib
import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size
from torch.utils.data import DataLoader, IterableDataset

Sample = tuple[int, int, int]  # seed, epoch, index in the dataset


class SeededBatches:
    """The batches of a batch sampler, as the seed, epoch and index of each sample.

    A sampler without epochs, as MMEngine's `InfiniteSampler`, begins one with each of its passes.

    Args:
        batches: A batch sampler, which gives the indices of each batch.
        seed: Of the training.
        size: Images of the dataset.
        skip: The first iteration leaves out this many batches, which are not loaded.
    """

    def __init__(
        self, batches: Iterable[Sequence[int]], seed: int, size: int, skip: int = 0
    ) -> None:
        self.batches, self.seed, self.size, self.skip = batches, seed, size, skip
        self.given: deque[list[Sample]] = deque()  # those that the training has not had yet
        # What others read of a batch sampler
        self.sampler = getattr(batches, 'sampler', None)
        self.batch_size = getattr(batches, 'batch_size', None)
        self.drop_last = getattr(batches, 'drop_last', False)

    def __iter__(self) -> Iterator[list[Sample]]:
        skip, self.skip = self.skip, 0
        self.given.clear()
        drawn = 0
        for number, batch in enumerate(self.batches):
            first, drawn = drawn, drawn + len(batch)
            if number >= skip:
                places = enumerate(batch, first)
                self.given.append([(self.seed, self._epoch(at), index) for at, index in places])
                yield self.given[-1]

    def __len__(self) -> int:
        return len(self.batches)

    def _epoch(self, place: int) -> int:
        """That of the sample at a place in the pass of this process."""
        epoch = getattr(self.sampler, 'epoch', None)
        return (place * get_world_size() + get_rank()) // self.size if epoch is None else epoch


class SeededSamples:
    """Stands for the `__getitems__` of a dataset, by which PyTorch asks for a batch.

    Args:
        dataset: Gives a sample for an index.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __call__(self, samples: Sequence[Sample]) -> list[Any]:
        """The samples of a batch."""
        return [self._sample(each) for each in samples]

    def _sample(self, sample: Sample) -> Any:
        with seeded(*sample):
            return self.dataset[sample[-1]]


def can_seed(loader: DataLoader) -> bool:
    """Whether the samples of a dataloader have indices, which come in batches."""
    return loader.batch_sampler is not None and not isinstance(loader.dataset, IterableDataset)


def seed_samples(loader: DataLoader, seed: int, epoch: int = 0, skip: int = 0) -> None:
    """Let a dataloader give seeded samples, from a batch of an epoch of its sampler on."""
    batches = SeededBatches(loader.batch_sampler, abs(seed), len(loader.dataset), skip)
    if hasattr(batches.sampler, 'epoch'):
        batches.sampler.set_epoch(epoch)
    vars(loader)['batch_sampler'] = batches  # a dataloader refuses the usual way
    loader.dataset.__getitems__ = SeededSamples(loader.dataset)


@contextlib.contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Seed Python's, NumPy's and PyTorch's CPU generator, and put them back."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed = _one_number(numbers)
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # `torch.manual_seed` seeds GPUs too
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def seed_all(*numbers: int) -> None:
    """Seed all generators, those of GPUs too."""
    seed = _one_number(numbers)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _one_number(numbers: Sequence[int]) -> int:
    """One of 32 bits, which NumPy takes."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
