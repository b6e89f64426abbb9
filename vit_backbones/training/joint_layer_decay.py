"""Learning rates of EoMT by layer, as its authors released them.

Source: https://github.com/tue-mps/eomt (MIT), `training/lightning_module.py`.
"""

from collections.abc import Mapping

from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import Tensor, nn

from vit_backbones.backbone import ViTFeatBackbone
from vit_backbones.heads.joint_features import ThroughBackbone
from vit_backbones.training.layer_decay import GroupKey, ViTLayerDecayConstructor
from vit_backbones.training.two_stage_warmup import IN_VIT


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class EoMTOptimWrapperConstructor(ViTLayerDecayConstructor):
    """Optimizer of EoMT: `ViTLayerDecayConstructor`, one layer higher, and all of it decays.

    The last block learns with `lr`, each block below with `decay_rate` times the rate of the one
    above, and embeddings, positions and prefix tokens with that of the first block. The groups of
    the ViT have a mark, by which `TwoStageWarmupPolyLR` warms them up later.

    Examples:
        >>> optim_wrapper = dict(
        ...     optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
        ...     constructor='EoMTOptimWrapperConstructor',
        ...     paramwise_cfg=dict(decay_rate=0.8),
        ... )

    Args:
        optim_wrapper_cfg: As MMEngine's; its `optimizer` needs an `lr`.
        paramwise_cfg: As for `ViTLayerDecayConstructor`, and:
            `joint_decay=False` lets the blocks that the queries share, of which the head says the
            number, learn with `lr`; `decay_all=False` takes the weight decay off biases, norms,
            positions and prefix tokens.

    Raises:
        ValueError: As `ViTLayerDecayConstructor`, and for `joint_decay=False` without such blocks.
    """

    OPTIONS = (*ViTLayerDecayConstructor.OPTIONS, 'joint_decay', 'decay_all')

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        for name in ('joint_decay', 'decay_all'):
            if not isinstance(value := self.paramwise_cfg.get(name, True), bool):
                raise ValueError(f'paramwise_cfg.{name} is True or False, got {value!r}')

    def add_params(self, params: list[dict], module: nn.Module, **kwargs: object) -> None:
        """Append a group for each layer, weight decay and custom key; those of the ViT apart."""
        self._num_joint = 0
        if not self.paramwise_cfg.get('joint_decay', True):
            self._num_joint = _num_joint_blocks(module)
        super().add_params(params, module, **kwargs)

    def _key(
        self, name: str, parameter: Tensor, backbones: Mapping[str, ViTFeatBackbone]
    ) -> GroupKey:
        key = super()._key(name, parameter, backbones)
        return key._replace(
            is_decayed=key.is_decayed or self.paramwise_cfg.get('decay_all', True),
            is_in_vit=any(name.startswith(place) for place in backbones),
        )

    def _rate(self, layer: int, num_layers: int) -> float:
        last = num_layers - 1  # of final norm and heads; the blocks are 1 .. last - 1
        if layer >= last - self._num_joint:
            return super()._rate(last, num_layers)
        return super()._rate(max(layer, 1) + 1, num_layers)

    def _group(self, key: GroupKey, parameters: list[nn.Parameter]) -> dict[str, object]:
        return super()._group(key, parameters) | {IN_VIT: key.is_in_vit}


def _num_joint_blocks(model: nn.Module) -> int:
    """Blocks of the ViT that the queries share, as the head of a model says."""
    for module in model.modules():
        if isinstance(module, ThroughBackbone):
            return module.num_blocks
    raise ValueError(
        f'joint_decay=False needs a head whose queries go through the ViT, as EoMT has, and '
        f'{type(model).__name__} has none: leave it out'
    )
