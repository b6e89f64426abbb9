"""A whole training step of a config: model, drawn images with objects, the config's optimizer."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import Tensor, nn

from vit_backbones.benchmark.step_parts import Parts
from vit_backbones.benchmark.subjects import Setting, built, drawn, placed
from vit_backbones.checks.wiring import vit_of
from vit_backbones.config.explain import describe
from vit_backbones.config.loading import load_config
from vit_backbones.position import Grid
from vit_backbones.terminal import quiet_log, quiet_prints
from vit_backbones.training.compiling import compile_parts
from vit_backbones.training.deferred_scalars import keep_norm
from vit_backbones.training.machine import fit_to_machine

OBJECTS = 5  # of each image
_SIZE = (512, 512)
_OF_AMP = ('dtype', 'loss_scale', 'use_fsdp')  # options of its wrapper
_ITSELF = ('backbone', 'neck')
_NO_HEAD = (*_ITSELF, 'data_preprocessor', 'loss')  # beginnings of names of modules


class TrainingStep:
    """Forward, losses, backward and optimizer of a model, in train mode on its device.

    The rates of learning are 0, so that every step does the same work on the same weights. A start
    without a head, as `auxiliary_iters` asks for it, and accumulation of gradients are left out.
    Autocast replaces MMEngine's `AmpOptimWrapper`, without the scaling of fp16.

    Args:
        config: The whole config; it is not changed.
        path: Its name in messages.
        model: The config's, or one that takes the same data.
        setting: Its `mode` is `'train'`; `compiled` is for `compile`.

    Attributes:
        parts: Which part runs, see `PARTS`.
        around: Makes a context in which each step runs.
    """

    around: Callable[[], AbstractContextManager] = staticmethod(nullcontext)

    def __init__(
        self, config: Config, path: str | Path, model: nn.Module, setting: Setting
    ) -> None:
        torch.manual_seed(0)  # the same images for all
        self.model, self.setting, self._path = placed(model, setting), setting, path
        self._images, self._samples = drawn(config, path, model, setting, OBJECTS)
        self.optimizer = _optimizer(config, path, model)
        self.parts = Parts()
        _wrap(self.parts, model, self.optimizer)

    def step(self) -> None:
        """Run one step as MMEngine's `train_step` does, behind the preprocessing."""
        with self.around():
            with self.setting.autocast(), self.optimizer.optim_context(self.model):
                losses = self.model(self._images, self._samples, mode='loss')
            self.optimizer.update_params(self.model.parse_losses(losses)[0])

    visible_step = step

    def tried(self) -> 'TrainingStep':
        """Run a first step; a `ValueError` in one line if it fails."""
        height, width = self.setting.size
        try:
            self.step()
        except Exception as error:  # each class has its own
            raise ValueError(
                f'{self._path}: a training step of {self.setting.batch_size} x {height}x{width} '
                f'fails: {describe(error)}; try another size=... or batch_size=...'
            ) from error
        return self

    def compile(self) -> None:
        """Let backbone and neck run through `torch.compile`."""
        found = {name: getattr(self.model, name, None) for name in _ITSELF}
        modules = {name: each for name, each in found.items() if isinstance(each, nn.Module)}
        for module in modules.values():
            module.forward = module.forward.__wrapped__  # the clock is not for the compiler
        compile_parts(self.model)
        for name, module in modules.items():
            self.parts.wrap(module, '_compiled_call_impl', name)

    @property
    def hosted(self) -> list[Tensor]:
        """Numbers of steps that the optimizer keeps on the host, whatever the device."""
        states = self.optimizer.optimizer.state.values()
        found = [state['step'] for state in states if isinstance(state.get('step'), Tensor)]
        return [each for each in found if each.device.type == 'cpu']


def training_config(path: str | Path, options: Sequence[str] = ()) -> Config:
    """Load a config that trains, with what the machine decides as in a training.

    A `ValueError` if it has no `train_dataloader` or optimizer.
    """
    config = load_config(path, options)
    for key in ('train_dataloader', 'optim_wrapper'):
        if not config.get(key):
            raise ValueError(
                f'{path}: the config has no {key}, and so no training step: name a config that '
                f'tools/train.py trains'
            )
    fit_to_machine(config)
    return config


def training_step(
    path: str | Path, options: Sequence[str], setting: Setting, **changes: Any
) -> TrainingStep:
    """The step of a config in a setting; `changes` are merged into the config."""
    config = training_config(path, options)
    config.merge_from_dict(changes)
    return TrainingStep(config, path, built(config, path), setting)


def size_of(config: Config, model: nn.Module) -> Grid:
    """(H, W) of a config's training images where it says it, else 512x512."""
    vit, preprocessor = vit_of(model), config.model.get('data_preprocessor') or {}
    augments = preprocessor.get('batch_augments') or ()
    sizes = [vit and vit.fixed_size, preprocessor.get('size')]
    sizes += [each.get('size') for each in augments]
    sizes += [(config.model.get('backbone') or {}).get('img_size')]
    found = next(filter(None, sizes), _SIZE)
    return (found, found) if isinstance(found, int) else tuple(found)


def autocast_of(config: Config) -> str:
    """The type of a config's optimizer wrapper, a key of `DTYPES`."""
    return 'bf16' if 'Amp' in str(config.optim_wrapper.get('type')) else 'fp32'


def _optimizer(config: Config, path: str | Path, model: nn.Module) -> Any:
    wanted = {k: v for k, v in config.optim_wrapper.items() if k != 'accumulative_counts'}
    if autocast_of(config) != 'fp32':  # the setting has its autocast
        wanted = {k: v for k, v in wanted.items() if k not in _OF_AMP}
        wanted |= dict(type='OptimWrapper')
    try:
        with quiet_log(), quiet_prints():
            wrapper = build_optim_wrapper(model, wanted)
    except Exception as error:  # each class has its own
        raise ValueError(f'{path}: optim_wrapper: {describe(error)}') from error
    for group in wrapper.optimizer.param_groups:
        group['lr'] = 0.0
    keep_norm(wrapper)
    return wrapper


def _wrap(parts: Parts, model: nn.Module, optimizer: Any) -> None:
    """Let each part be known by the methods that begin it.

    Of the forward pass backbone and neck are themselves, `head` is what other modules compute, and
    `loss` the rest: proposals, targets, matching and the losses.
    """
    parts.wrap(model, 'loss', 'loss')
    parts.wrap(model, 'parse_losses', 'loss')
    for name, module in model.named_modules():
        if name in _ITSELF:
            parts.wrap(module, 'forward', name)
        elif name and not any(each.startswith(_NO_HEAD) for each in name.split('.')):
            parts.wrap(module, 'forward', 'head')
    parts.wrap(optimizer, 'backward', 'backward')
    for method in ('step', 'zero_grad'):
        parts.wrap(optimizer, method, 'optimizer')
