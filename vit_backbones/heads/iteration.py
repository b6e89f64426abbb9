"""The iteration of the training that runs, as MMEngine's message hub has it."""

from typing import NamedTuple

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.logging import MessageHub


class Iteration(NamedTuple):
    """Where a training stands.

    Attributes:
        done: Iterations before this one.
        total: Iterations of the whole training.
        seed: Seed of the training, the same in all processes.
    """

    done: int
    total: int
    seed: int

    @classmethod
    def current(cls) -> 'Iteration | None':
        """That of the training that runs in this process; `None` in tests and without MMEngine.

        MMEngine's `RuntimeInfoHook`, which each of its runners has, keeps these numbers, and a
        resume goes on with them. It counts every batch, also where gradients are accumulated.
        """
        hub = MessageHub.get_current_instance()
        stage, number = hub.get_info('loop_stage'), hub.get_info('iter')
        total = hub.get_info('max_iters')
        if stage not in ('train', 'val') or number is None or not total:
            return None
        return cls(number + (stage == 'val'), total, hub.get_info('seed') or 0)

    def generator(self, device: torch.device) -> torch.Generator:
        """Random numbers of this iteration and process, whatever was drawn before."""
        entropy = [abs(self.seed), self.done, get_rank()]
        (seed,) = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
        return torch.Generator(device).manual_seed(int(seed >> 1))  # within 63 bits
