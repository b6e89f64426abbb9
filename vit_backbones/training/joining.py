"""How the processes of a training find each other: without a GPU too, and after a restart."""

import os
from datetime import timedelta
from typing import Any

import torch
from mmengine.dist import is_distributed
from torch import distributed


def shares_cpu(launcher: str | None) -> bool:
    """Whether processes train without a GPU."""
    return launcher == 'pytorch' and not torch.cuda.is_available()


def join(launcher: str | None, dist_cfg: dict[str, Any] | None) -> None:
    """Let processes find each other, where MMEngine's own way fails.

    It asks for a GPU. And `torchrun --max-restarts` keeps its store over restarts, so that a
    process may find one of those before (https://github.com/pytorch/pytorch/issues/135712). With
    several nodes the counts of restarts differ, and `TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1` helps.
    """
    given = dist_cfg or {}
    restarts = _restarts()
    if launcher != 'pytorch' or is_distributed() or not (shares_cpu(launcher) or restarts):
        return
    backend, seconds, store = 'gloo', given.get('timeout'), {}
    if torch.cuda.is_available():
        backend = given.get('backend', 'nccl')
        torch.cuda.set_device(int(os.environ['LOCAL_RANK']))
    if restarts:
        found, rank, size = next(distributed.rendezvous('env://'))
        found = distributed.PrefixStore(f'restart_{restarts}', found)
        store = dict(store=found, rank=rank, world_size=size)
    timeout = None if seconds is None else timedelta(seconds=seconds)
    distributed.init_process_group(backend, timeout=timeout, **store)


def _restarts() -> int:
    """How often `torchrun` has started this process anew, on a single node."""
    if os.environ.get('GROUP_WORLD_SIZE') != '1':
        return 0
    return int(os.environ.get('TORCHELASTIC_RESTART_COUNT', 0))
