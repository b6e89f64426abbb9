"""The models to measure (a backbone, a peer of it, a config's whole model) and one step of each."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from vit_backbones.backbone import ViTFeatBackbone
from vit_backbones.checks.report import without_weights
from vit_backbones.checks.trial import data_samples
from vit_backbones.config.explain import describe
from vit_backbones.config.loading import load_config, use_scope
from vit_backbones.devices import DTYPES
from vit_backbones.position import Grid
from vit_backbones.terminal import quiet_log, quiet_prints


class Setting(NamedTuple):
    """The conditions under which a step is measured.

    Attributes:
        size: (H, W) of the images.
        dtype: Key of `DTYPES`; weights stay float32, autocast uses other types.
        mode: `'forward'`: inference; `'train'`: forward and backward, without an optimizer.
        compiled: Whether models go through `torch.compile`.
    """

    size: Grid
    batch_size: int = 1
    dtype: str = 'fp32'
    mode: str = 'forward'
    device: torch.device = torch.device('cpu')
    compiled: bool = False

    def __str__(self) -> str:
        """Size, type and mode in a few words."""
        return f'{self.size[0]}x{self.size[1]} {self.dtype} {self.mode}'

    def images(self, channels: int = 3) -> Tensor:
        """Noise, (B, channels, H, W)."""
        return torch.randn(self.batch_size, channels, *self.size, device=self.device)

    def autocast(self) -> torch.autocast:
        """The context in which the forward pass runs."""
        dtype = DTYPES[self.dtype]
        on = dtype is not torch.float32
        return torch.autocast(self.device.type, dtype if on else None, enabled=on)


class Subject(NamedTuple):
    """A model in train or eval mode, on its device; `run` gives its outputs or its loss."""

    model: nn.Module
    run: Callable[[], Any]
    setting: Setting

    def step(self) -> None:
        """Run one inference or one training step, as it is timed."""
        self._step(torch.inference_mode())

    def visible_step(self) -> None:
        """Run the same where kernels can be watched; inference mode hides them."""
        self._step(torch.no_grad())

    def _step(self, inference: AbstractContextManager) -> None:
        if self.setting.mode != 'train':
            with inference, self.setting.autocast():
                self.run()
            return
        self.model.zero_grad(set_to_none=True)
        with self.setting.autocast():
            loss = self.run()
        if loss.requires_grad:  # a frozen backbone has no backward
            loss.backward()

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())


def of_backbone(model: nn.Module, setting: Setting, channels: int = 3) -> Subject:
    """A module that takes images of some channels; it learns to make the sum of its outputs small.

    The module moves to the setting's device and into its mode.
    """
    model = placed(model, setting)
    called = torch.compile(model) if setting.compiled else model
    images = setting.images(channels)

    def run() -> Any:
        outputs = called(images)
        if setting.mode == 'forward':
            return outputs
        return sum(each.float().sum() for each in tree_leaves(outputs))

    return Subject(model, run, setting)


def build_backbone(name: str, source: str, size: Grid, **options: Any) -> ViTFeatBackbone:
    """A backbone with random weights, built for images of a size (H, W)."""
    with quiet_log():
        try:
            return ViTFeatBackbone(name, source=source, img_size=size, **options)
        except TypeError as error:
            raise ValueError(f'{name}: {describe(error)}') from error


def of_config(path: str | Path, options: Sequence[str], setting: Setting) -> Subject:
    """The whole model of an mmdet or mmseg config, without its weights.

    Forward is a prediction with all that follows the heads; `options` are `key=value` changes.
    """
    config = load_config(path, options)
    model = placed(built(config, path), setting)
    images, samples = drawn(config, path, model, setting)
    called = torch.compile(model) if setting.compiled else model

    def run() -> Any:
        if setting.mode == 'forward':
            return called(images, samples, mode='predict')
        return model.parse_losses(called(images, samples, mode='loss'))[0]

    return Subject(model, run, setting)


def drawn(
    config: Config, path: str | Path, model: nn.Module, setting: Setting, objects: int = 1
) -> tuple[Tensor, list[Any]]:
    """Noise, and data samples for a config's model with so many objects an image."""
    samples = data_samples(config, model, setting.size, setting.batch_size, objects)
    if samples is None:
        raise ValueError(
            f'{path}: {type(model).__name__} takes other data than the detectors of mmdet and the '
            f'segmenters of mmseg'
        )
    images = setting.images(getattr(model.backbone, 'in_channels', 3))
    return images, [each.to(setting.device) for each in samples]


def built(config: Config, path: str | Path) -> nn.Module:
    """The model of a config without its weights."""
    use_scope(config)
    if not isinstance(config.get('model'), dict):
        raise ValueError(f'{path}: the config has no model: is it only the _base_ of others?')
    with quiet_log(), quiet_prints():
        try:
            return MODELS.build(without_weights(config.model))
        except Exception as error:  # each class has its own
            raise ValueError(f'{path}: model: {describe(error)}') from error


def placed(model: nn.Module, setting: Setting) -> nn.Module:
    """The same model on its device and in its mode, with its head from the first step."""
    if getattr(model, 'auxiliary_iters', 0):
        model.auxiliary_iters = 0
    model.to(setting.device).train(setting.mode == 'train')  # mmseg's ViT returns None
    return model
