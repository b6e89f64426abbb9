"""Training with FSDP: parameters, gradients and optimizer lie in shards on all GPUs."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from mmengine._strategy import FSDPStrategy
from mmengine.optim import OptimWrapper
from mmengine.registry import STRATEGIES
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import lambda_auto_wrap_policy

from vit_backbones.backbone import ViTFeatBackbone
from vit_backbones.training.deferred_scalars import keep_scalars
from vit_backbones.training.machine import keep_own_way

_BESIDE_OPTIMIZER = ('base_param_settings', 'loss_scaler')  # in the state of MMEngine's wrappers
_MOST_NAMES = 10


@STRATEGIES.register_module()
class ViTFSDPStrategy(FSDPStrategy):
    """MMEngine's FSDP (fully sharded data parallel) for models around a `ViTFeatBackbone`.

    Each block of the ViT is gathered when it runs; the rest is one more unit. Unlike in MMEngine's,
    gradients are clipped by their norm over all shards, `ViTLayerDecayConstructor` knows the
    parameters' shapes, training resumes, and a config can be tried without a GPU. Checkpoints are
    whole, as `tools/test.py` reads them.

    Example, for several processes started by `torchrun`:
        >>> runner_type = 'FlexibleRunner'
        >>> strategy = dict(type='ViTFSDPStrategy')

    Args:
        model_wrapper: Arguments for MMEngine's `MMFullyShardedDataParallel`, over the defaults
            `use_orig_params=True` and an `auto_wrap_policy` of the ViT's blocks.
        state_dict_cfg: As MMEngine's, which saves `'local'` shards by default; whole here.
        **kwargs: MMEngine's.
    """

    def __init__(
        self,
        *,
        model_wrapper: dict[str, Any] | None = None,
        state_dict_cfg: str | dict[str, Any] = 'full',
        **kwargs: Any,
    ) -> None:
        super().__init__(model_wrapper=model_wrapper, state_dict_cfg=state_dict_cfg, **kwargs)
        if not torch.cuda.is_available():  # tensors on the CPU already would be freed
            self.state_dict_config.offload_to_cpu = False
            self.optim_state_dict_config.offload_to_cpu = False

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        for parameter in model.parameters():
            parameter.whole_shape = parameter.shape  # its shard will be flat
        for each in model.modules():
            if isinstance(each, ViTFeatBackbone):
                each.learns = each.learns  # frozen parameters will share shards with trained ones
        blocks = {id(block) for block in vit_blocks(model)}
        policy = partial(lambda_auto_wrap_policy, lambda_fn=lambda module: id(module) in blocks)
        default = dict(use_orig_params=True, auto_wrap_policy=policy)
        if not torch.cuda.is_available():
            default['device_id'] = torch.device('cpu')
        self.model_wrapper = default | (self.model_wrapper or {})
        return super()._wrap_model(model)

    def build_optim_wrapper(self, *args: Any, **kwargs: Any) -> OptimWrapper:
        """Build the optimizer; it clips by the norm of all shards, not only of its own."""
        wrapper = super().build_optim_wrapper(*args, **kwargs)
        keep_own_way(wrapper)
        if getattr(wrapper, 'clip_func', None) is nn.utils.clip_grad_norm_:
            wrapper._clip_grad = partial(self._clip_grad, wrapper)
        return wrapper

    def _clip_grad(self, wrapper: OptimWrapper) -> None:
        """Clip on all processes together, also on those whose shards are frozen."""
        norm = self.model.clip_grad_norm_(**wrapper.clip_grad_kwargs)
        keep_scalars(wrapper.message_hub, {f'train/{wrapper.grad_name}': norm})

    def optim_state_dict(self) -> dict[str, Any]:
        """The optimizer's state, and that of MMEngine's wrapper."""
        optimizer = self.optim_wrapper.optimizer
        state = FullyShardedDataParallel.optim_state_dict(self.model, optimizer)
        beside = self.optim_wrapper.state_dict()
        return state | {key: beside[key] for key in _BESIDE_OPTIMIZER if key in beside}

    def load_optim_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the optimizer's state; MMEngine has the argument order of PyTorch 2.0."""
        beside = {key: state_dict.pop(key) for key in _BESIDE_OPTIMIZER if key in state_dict}
        optimizer = self.optim_wrapper.optimizer
        shard = FullyShardedDataParallel.optim_state_dict_to_load(self.model, optimizer, state_dict)
        self.optim_wrapper.load_state_dict(shard | beside)

    def load_model_state_dict(self, state_dict: dict[str, Any], **kwargs: Any) -> None:
        """Load weights, and warn of those that are missing or left over."""
        result = self.model.load_state_dict(state_dict, strict=False)
        for what, names in zip(('missing from', 'left over in'), result, strict=True):
            if names:
                more = ', ...' if len(names) > _MOST_NAMES else ''
                self.logger.warning(
                    f'{len(names)} tensors are {what} the checkpoint: '
                    f'{", ".join(names[:_MOST_NAMES])}{more}'
                )


def vit_blocks(model: nn.Module) -> Iterator[nn.Module]:
    """The blocks (in hierarchical models the stages) of all `ViTFeatBackbone`s, before wrapping."""
    for each in model.modules():
        if isinstance(each, ViTFeatBackbone) and each.source.calls_layers:
            yield from _blocks(each, each, '')


def _blocks(backbone: ViTFeatBackbone, module: nn.Module, place: str) -> Iterator[nn.Module]:
    """The outermost modules whose parameters all belong to one block."""
    for name, child in module.named_children():
        names = [f'{place}{name}.{each}' for each, _ in child.named_parameters()]
        layers = {backbone.get_layer_depth(each, '')[0] for each in names}
        is_called = not isinstance(child, nn.ModuleList)
        if is_called and len(layers) == 1 and 0 < min(layers) <= backbone.depth:
            yield child
        else:
            yield from _blocks(backbone, child, f'{place}{name}.')
