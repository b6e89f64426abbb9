"""Other ways to compute parts of a training step, for comparison."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from mmengine.config import Config
from timm.models.vision_transformer import Block
from torch import nn

from vit_backbones.benchmark.subjects import Setting, built
from vit_backbones.benchmark.training_step import TrainingStep
from vit_backbones.benchmark.written_out import WrittenOut
from vit_backbones.checks.wiring import vit_of
from vit_backbones.config.facts import nodes
from vit_backbones.heads.joint_features import ThroughBackbone

# Heads of ours by the toolbox's own that compute the same
_STOCK = {
    'BatchedMask2FormerHead': 'mmdet.Mask2FormerHead',
    'BatchedSegMask2FormerHead': 'mmseg.Mask2FormerHead',
}


def step_peers(
    config: Config, path: str | Path, setting: Setting
) -> tuple[dict[str, TrainingStep], dict[str, str]]:
    """Steps of the same config by name, and the reasons why others are missing."""
    found, absent = {}, {}
    for name, build in PEERS.items():
        try:
            found[name] = build(config, path, setting)
        except NoPeerError as reason:
            absent[name] = str(reason)
    return found, absent


class NoPeerError(ValueError):
    """There is none; the text reads as a reason."""


def _stock_head(config: Config, path: str | Path, setting: Setting) -> TrainingStep:
    """The toolbox's head, whose losses are computed image by image."""
    stock = with_stock_head(config)
    if stock is None:
        raise NoPeerError('this config has it, or its head has no equal there')
    return TrainingStep(stock, path, built(stock, path), setting)


def with_stock_head(config: Config) -> Config | None:
    """A config with the toolbox's head for one of ours that computes the same; `None`: it has."""
    config, changed = copy.deepcopy(config), False
    for _, node, _ in nodes(config.model):
        if (name := str(node.get('type')).rpartition('.')[2]) in _STOCK:
            node['type'], changed = _STOCK[name], True
    return config if changed else None


def _grid_sample(config: Config, path: str | Path, setting: Setting) -> TrainingStep:
    """mmcv's deformable attention in pure PyTorch."""
    from mmcv.ops import MultiScaleDeformableAttention

    model = built(config, path)
    layers = [each for each in model.modules() if isinstance(each, MultiScaleDeformableAttention)]
    if not layers:
        raise NoPeerError('the model has no deformable attention')
    own = any(type(each) is not MultiScaleDeformableAttention for each in layers)
    if setting.device.type == 'cpu' and not own:
        raise NoPeerError('on a CPU it is what runs')
    return _sampling(config, path, model, setting)


def _sampling(config: Config, path: str | Path, model: nn.Module, setting: Setting) -> TrainingStep:
    from mmcv.ops import MultiScaleDeformableAttention

    for each in model.modules():
        if isinstance(each, MultiScaleDeformableAttention):
            each.__class__ = MultiScaleDeformableAttention
    step = TrainingStep(config, path, model, setting)
    step.around = by_grid_sample
    return step


def as_the_toolbox(config: Config, path: str | Path, setting: Setting) -> TrainingStep:
    """A step with the toolbox's own head and mmcv's deformable attention in pure PyTorch."""
    stock = with_stock_head(config) or config
    return _sampling(stock, path, built(stock, path), setting)


@contextmanager
def by_grid_sample() -> Iterator[None]:
    """Let mmcv's deformable attention run in pure PyTorch on every device."""
    from mmcv.ops import multi_scale_deform_attn as place

    def apply(value: Any, shapes: Any, start: Any, locations: Any, weights: Any, step: Any) -> Any:
        return place.multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)

    name = 'MultiScaleDeformableAttnFunction'
    with mock.patch.object(place, name, SimpleNamespace(apply=apply)):
        yield


def _explicit_softmax(config: Config, path: str | Path, setting: Setting) -> TrainingStep:
    """The backbone with its softmax written out."""
    model = built(config, path)
    vit, given = vit_of(model), config.model.get('backbone') or {}
    if vit is None or not all(type(block) is Block for block in getattr(vit.vit, 'blocks', [0])):
        raise NoPeerError("the backbone is not timm's plain ViT")
    if any(isinstance(each, ThroughBackbone) for each in model.modules()):
        raise NoPeerError("the head's masks of queries need fused attention")
    if given.get('window_size') or given.get('use_rel_pos'):
        _write_out(model.backbone, given)
    else:
        unfuse(vit)
    return TrainingStep(config, path, model, setting)


def _write_out(backbone: nn.Module, given: Any) -> None:
    """Let a backbone of arguments `given` run as `WrittenOut`."""
    if given.get('with_cp') or given.get('mask_padding') or given.get('lora'):
        raise NoPeerError('it is written without with_cp, mask_padding and lora')
    try:
        window = given.get('window_size') or 0
        other = WrittenOut(backbone, window, given.get('window_block_indexes') or ())
    except ValueError as reason:
        raise NoPeerError(str(reason)) from None
    backbone.forward = other.forward  # parameters keep their names


def unfuse(model: nn.Module) -> nn.Module:
    """Let timm's attention layers write out their softmax."""
    for module in model.modules():
        if hasattr(module, 'fused_attn'):
            module.fused_attn = False
    return model


PEERS: dict[str, Callable[[Config, str | Path, Setting], TrainingStep]] = {
    "the toolbox's head": _stock_head,
    'grid_sample': _grid_sample,
    'explicit softmax': _explicit_softmax,
}
