"""What a config leaves to the machine: how the optimizer computes, and how data are loaded."""

import os
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import BaseDataPreprocessor
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.optim import Optimizer

_FUSED = ('Adam', 'AdamW')
_FUSING = ('cuda', 'cpu')  # devices
_WAYS = ('fused', 'foreach', 'capturable', 'differentiable')  # of PyTorch's optimizers to compute
_MOST_WORKERS = 8  # of one dataloader: more seldom help, and each holds its dataset


def fit_to_machine(config: Config) -> None:
    """Fill in what a config leaves open; a value in the config always stays.

    `optimizer.fused=True` for Adam and AdamW, one kernel instead of ten for each parameter, unless
    the config has one of PyTorch's other ways or a strategy such as FSDP. `num_workers` is one on a
    CPU, which computes too, and with a GPU one for each free core, up to 8. Workers stay for all
    epochs (`persistent_workers=True`). With a GPU `pin_memory=True`.
    """
    optimizer = (config.get('optim_wrapper') or {}).get('optimizer')
    is_plain = config.get('runner_type', 'Runner') == 'Runner' and get_device() in _FUSING
    if is_plain and isinstance(optimizer, dict) and optimizer.get('type') in _FUSED:
        if not any(way in optimizer for way in _WAYS):
            optimizer['fused'] = True
    number = num_workers(config.get('launcher', 'none'))
    for split in ('train', 'val', 'test'):
        if isinstance(loader := config.get(f'{split}_dataloader'), dict):
            if loader.setdefault('num_workers', number):
                # Workers that start anew draw the same random numbers in each epoch
                loader.setdefault('persistent_workers', True)
            if torch.cuda.is_available():
                loader.setdefault('pin_memory', True)


def num_workers(launcher: str = 'none') -> int:
    """Worker processes that suit a dataloader of one of the machine's processes."""
    if not torch.cuda.is_available():
        return 1
    return max(1, min(_MOST_WORKERS, free_cores(launcher) - 1))


def free_cores(launcher: str = 'none') -> int:
    """The cores of one of the training's processes on this machine."""
    processes = 1
    if launcher != 'none':
        given = os.environ.get('LOCAL_WORLD_SIZE')
        processes = int(given) if given else max(1, torch.cuda.device_count())
    affinity = getattr(os, 'sched_getaffinity', None)  # not on macOS
    return (len(affinity(0)) if affinity else os.cpu_count() or 1) // processes


def copy_without_waiting(model: nn.Module) -> None:
    """Let the data preprocessors of a model copy images to the GPU while it computes."""
    if torch.cuda.is_available():
        for each in model.modules():
            if isinstance(each, BaseDataPreprocessor):
                each._non_blocking = True


def keep_own_way(wrapper: OptimWrapper) -> None:
    """Let an optimizer go on computing as it was built, whatever checkpoint it loads."""
    if isinstance(optimizer := getattr(wrapper, 'optimizer', None), Optimizer):
        optimizer.register_load_state_dict_pre_hook(_with_own_way)


def _with_own_way(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """The state with the optimizer's way in its groups, and its counts on the device for that."""
    states, groups = dict(state['state']), []
    for old, own in zip(state['param_groups'], optimizer.param_groups, strict=False):
        way = {key: own[key] for key in _WAYS if key in own}
        groups.append(old | way)
        if way and not (way.get('fused') or way.get('capturable')):
            for number in set(old['params']) & states.keys():
                states[number] = _counted_on_host(states[number])
    groups += state['param_groups'][len(groups) :]  # PyTorch refuses other numbers
    return state | dict(state=states, param_groups=groups)


def _counted_on_host(state: dict[str, Any]) -> dict[str, Any]:
    """The state of a parameter; each step would wait for a count on the GPU."""
    count = state.get('step')
    return state | dict(step=count.cpu()) if isinstance(count, Tensor) else state
