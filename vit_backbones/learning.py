"""What of a model learns: all of it, the last layers only, or low-rank updates."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vit_backbones.adapted import AdaptedModel
from vit_backbones.checkpoints import updates
from vit_backbones.checkpoints.fitting import ALPHA_KEY
from vit_backbones.checkpoints.origin import decode
from vit_backbones.lora import check_use, inject, merge
from vit_backbones.sources.base import Source

_UPDATE = '.lora_'  # in the names of LoRA's parts, which learn in frozen blocks


class LearningModel(AdaptedModel):
    """A model with frozen layers, and with LoRA's updates.

    Attributes:
        frozen_stages: -1 nothing, 0 the embeddings, k also the first k blocks, depth everything.
    """

    def __init__(
        self, source: Source, vit: nn.Module, init_cfg: dict | list[dict] | None = None
    ) -> None:
        super().__init__(source, vit, init_cfg)
        self.frozen_stages = -1
        self._learns: bool | None = None
        self._alpha: int | None = None  # of the updates
        self._updated: dict[str, Tensor] = {}  # shapes; FSDP hides them

    @property
    def learns(self) -> bool:
        """Whether any parameter learns; adapters such as LoRA's do in frozen blocks.

        Set it before frozen and other parameters are joined into one, as FSDP does.
        """
        if self._learns is not None:
            return self._learns
        return self.frozen_stages < self.depth or any(p.requires_grad for p in self.parameters())

    @learns.setter
    def learns(self, value: bool) -> None:
        self._learns = value

    def train(self, mode: bool = True) -> 'LearningModel':
        """Switch the mode; frozen parts stay in eval, except for the updates in them."""
        super().train(mode)
        if not self.weights_layout.is_meta:  # a copy for EMA gets the record with the weights
            self._follow(decode(self.weights_layout))
        for name, module in self.vit.named_modules():  # parents come first
            if self._is_frozen(name):
                module.eval()
            elif _UPDATE in name:
                module.train(mode)
        return self

    def merge_lora(self) -> None:
        """Add the updates of `lora` to their layers for good, e.g. before an export."""
        merge(self.vit)
        self._alpha, self._updated = None, {}
        if hasattr(self, ALPHA_KEY):
            delattr(self, ALPHA_KEY)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        """Fit a whole model's checkpoint with other updates, or with none."""
        updates.fit(state_dict, f'{prefix}vit.', self._updated, self._alpha)
        if hasattr(self, ALPHA_KEY):
            state_dict[prefix + ALPHA_KEY] = getattr(self, ALPHA_KEY)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _set_learning(self, lora: Mapping[str, object] | None) -> None:
        if lora is not None:
            self.init_weights()  # while layers have the names that files know
            self._alpha = inject(self.vit, lora)
            self._updated = {n: t.to('meta') for n, t in self.vit.state_dict().items()}
            check_use(self, torch.zeros(1, self.in_channels, *self.built_size))
            self.weights.load_updates(self.vit, self._alpha)
            self.register_buffer(ALPHA_KEY, torch.tensor(self._alpha))
        self._freeze()

    def _check_frozen(self) -> None:
        names = [name for name, _ in self.vit.named_parameters()]
        if self.frozen_stages == 0 and not any(map(self._is_frozen, names)):
            raise ValueError(
                f'frozen_stages=0 freezes nothing: {type(self.vit).__name__} has no layer before '
                f'its first; use -1, or 1 for the first'
            )

    def _is_frozen(self, name: str) -> bool:
        if _UPDATE in name:
            return False
        everything = self.frozen_stages == self.depth
        return everything or self.source.layer_of(name, self.depth) <= self.frozen_stages

    def _freeze(self) -> None:
        for name, parameter in self.vit.named_parameters():
            if self._is_frozen(name):
                parameter.requires_grad_(False)
        self.train(self.training)
