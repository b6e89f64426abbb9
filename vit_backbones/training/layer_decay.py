"""Layer-wise learning rates: the further below the head, the smaller.

Rule: https://github.com/microsoft/unilm (BEiT, MIT), `optim_factory.py`, as in ViTDet.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import Tensor, nn

from vit_backbones.arguments import choice
from vit_backbones.backbone import ViTFeatBackbone

# Prefix tokens and tables of positions; vectors (biases, norms, scales) are found by their shape
_UNDECAYED = re.compile(
    r'tokens?(_?\d+)?$|class_embedding$|pos_embed|position_embedding|relative_position|rel_pos_|'
    r'rope\.|(patch|pixel)_pos$|level_embed$|attention_bias|cpb_mlp|logit_scale|temperature'
)
_RATES = ('decay_rate', 'layer_decay_rate')
# MMEngine's options for things that the rule does by itself
_IMPLIED = {'norm_decay_mult': 0, 'bias_decay_mult': 0, 'flat_decay_mult': 0}
_OPTIONS = (*_RATES, 'custom_keys', 'num_layers', 'decay_type', 'bypass_duplicate', *_IMPLIED)


class GroupKey(NamedTuple):
    """What the parameters of a group have in common."""

    layer: int
    num_layers: int
    is_decayed: bool
    custom: str  # of `custom_keys`
    is_in_vit: bool = False


def learning_rate(base: float, decay_rate: float, layer: int, num_layers: int) -> float:
    """Learning rate of a layer: the base rate for the last one, less by a factor for each below.

    Layers count as in `ViTFeatBackbone.get_layer_depth`: 0 embeddings, i + 1 block i, and
    `num_layers - 1` (blocks + 1) the final norm, neck and heads.
    """
    return base * decay_rate ** (num_layers - 1 - layer)


def is_decayed(name: str, parameter: Tensor) -> bool:
    """Whether a parameter has weight decay; biases, norms, positions and tokens have none."""
    # Shards of FSDP are flat, and `ViTFSDPStrategy` notes the whole shape
    shape = getattr(parameter, 'whole_shape', parameter.shape)
    return sum(size > 1 for size in shape) > 1 and _UNDECAYED.search(name) is None


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class ViTLayerDecayConstructor(DefaultOptimWrapperConstructor):
    """Optimizer whose learning rate decays from the heads down to the embeddings of a ViT.

    For every model that holds a `ViTFeatBackbone`, of any source: block i of the n blocks that
    exist learns with `lr * decay_rate ** (n - i)`, the embeddings with
    `lr * decay_rate ** (n + 1)`, final norm, neck and heads with `lr`. Hierarchical models count
    stages instead of blocks. Biases, norms, positions and prefix tokens have no weight decay.
    Frozen parameters are left out.

    Examples:
        >>> optim_wrapper = dict(
        ...     optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
        ...     constructor='ViTLayerDecayConstructor',
        ...     paramwise_cfg=dict(decay_rate=0.7),
        ... )

    Args:
        optim_wrapper_cfg: As MMEngine's; its `optimizer` needs an `lr`.
        paramwise_cfg: `decay_rate` (or `layer_decay_rate`, its name elsewhere) in (0, 1].
            `custom_keys` as MMEngine's, on top: the longest key found in a parameter's name
            multiplies its learning rate by `lr_mult` and its weight decay by `decay_mult`.
            `num_layers` and `decay_type='layer_wise'` of mmdet's and mmseg's constructors may
            stay, and so may `norm_decay_mult=0` and the like; the backbone gives the depth.

    Raises:
        ValueError: For an option that is not one of these, or a model without `ViTFeatBackbone`.
    """

    OPTIONS: tuple[str, ...] = _OPTIONS

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        config = self.paramwise_cfg
        for name in config:
            choice('a key of paramwise_cfg', name, self.OPTIONS)
        for name in config.keys() & _IMPLIED.keys():
            if config[name] != 0:
                raise ValueError(
                    f'{name} must be 0, got {config[name]!r}: biases and norms have no weight '
                    f'decay here'
                )
        if 'decay_type' in config:
            choice('decay_type', config['decay_type'], ('layer_wise', 'layer_wise_vit'))
        given = [config[name] for name in _RATES if name in config]
        if len(given) != 1 or not isinstance(given[0], (int, float)) or not 0 < given[0] <= 1:
            raise ValueError(
                f'paramwise_cfg needs one decay_rate (or layer_decay_rate) in (0, 1], got '
                f'{", ".join(map(repr, given)) or "none"}'
            )
        if self.base_lr is None:
            raise ValueError(f'{type(self).__name__} needs an optimizer=dict(lr=...)')
        self.decay_rate = given[0]

    def add_params(self, params: list[dict], module: nn.Module, **kwargs: object) -> None:
        """Append a group for each layer, weight decay and custom key."""
        backbones = {
            f'{_plain(place)}.' if place else '': each
            for place, each in module.named_modules()
            if isinstance(each, ViTFeatBackbone)
        }
        if not backbones:
            raise ValueError(
                f'{type(self).__name__} found no ViTFeatBackbone in {type(module).__name__}, '
                f'and other backbones do not report their layers'
            )
        self._compare_depth(backbones)
        groups: dict[GroupKey, list[nn.Parameter]] = {}
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                groups.setdefault(self._key(_plain(name), parameter, backbones), []).append(
                    parameter
                )
        new = [self._group(key, groups[key]) for key in sorted(groups)]
        params += new
        lines = [_described(key, group) for key, group in zip(sorted(groups), new, strict=True)]
        print_log('\n'.join(['learning rates by layer:', *lines]), logger='current')

    def _compare_depth(self, backbones: Mapping[str, ViTFeatBackbone]) -> None:
        """Log that another `num_layers` in the config is ignored."""
        given = self.paramwise_cfg.get('num_layers')
        for place, each in backbones.items():
            depth = each.get_layer_depth('', place)[1] - 2
            if given not in (None, depth):
                print_log(
                    f'paramwise_cfg.num_layers={given} is passed over: {each.model_name} has '
                    f'{depth} layers here',
                    logger='current',
                )

    def _custom_key(self, name: str) -> str:
        """The longest of `custom_keys` in a name, the first by alphabet of equals; '' if none."""
        keys = sorted(key for key in self.paramwise_cfg.get('custom_keys', {}) if key in name)
        return max(keys, key=len, default='')

    def _key(
        self, name: str, parameter: Tensor, backbones: Mapping[str, ViTFeatBackbone]
    ) -> GroupKey:
        """What the parameters of a group have in common."""
        layer, num_layers = _layer(name, backbones)
        return GroupKey(layer, num_layers, is_decayed(name, parameter), self._custom_key(name))

    def _rate(self, layer: int, num_layers: int) -> float:
        """The learning rate of a layer."""
        return learning_rate(self.base_lr, self.decay_rate, layer, num_layers)

    def _group(self, key: GroupKey, parameters: list[nn.Parameter]) -> dict[str, object]:
        custom = self.paramwise_cfg.get('custom_keys', {}).get(key.custom, {})
        rate = self._rate(key.layer, key.num_layers)
        group = {'params': parameters, 'lr': rate * custom.get('lr_mult', 1)}
        if not key.is_decayed:
            group['weight_decay'] = 0.0
        elif self.base_wd is not None:
            group['weight_decay'] = self.base_wd * custom.get('decay_mult', 1)
        return group | custom  # other options of the optimizer, as MMEngine does


def _described(key: GroupKey, group: dict[str, object]) -> str:
    """A group in one line."""
    rates = ', '.join(f'{k} {group[k]:.4g}' for k in ('lr', 'weight_decay') if k in group)
    where = f'layer {key.layer} of {key.num_layers}{key.custom and f" ({key.custom})"}'
    return f'{where}{", ViT" * key.is_in_vit}: {rates}, {len(group["params"])} tensors'


def _plain(name: str) -> str:
    """A name as it was before FSDP wrapped the model."""
    return name.replace('_fsdp_wrapped_module.', '')


def _layer(name: str, backbones: Mapping[str, ViTFeatBackbone]) -> tuple[int, int]:
    """(layer, number of layers) of a parameter; outside backbones it is the last layer."""
    place = next((place for place in backbones if name.startswith(place)), next(iter(backbones)))
    return backbones[place].get_layer_depth(name, place)
