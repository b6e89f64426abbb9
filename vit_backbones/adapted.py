"""A library's model with its adapter: its geometry, and which of its layers are frozen."""

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from vit_backbones.checkpoints.fitting import GRID_KEY, LAYOUT_KEY
from vit_backbones.checkpoints.origin import UNKNOWN, decode, encode
from vit_backbones.position import Grid
from vit_backbones.sources.base import Source

_UPDATE = '.lora_'  # in the names of LoRA's parts, which learn in frozen blocks


class AdaptedModel(BaseModule):
    """A library's module (`vit`) with the adapter that knows it (`source`).

    Attributes:
        model_name: As given, or the module's type.
        load_report: Of the file of its weights, if any.
        depth: Blocks (or stages) of the architecture, pruned ones included.
        frozen_stages: -1 nothing, 0 the embeddings, k also the first k blocks, depth everything.
    """

    model_name: str
    in_channels: int
    load_report: str | None

    def __init__(
        self, source: Source, vit: nn.Module, init_cfg: dict | list[dict] | None = None
    ) -> None:
        super().__init__(init_cfg)
        self.source, self.vit = source, vit
        self.depth, self.frozen_stages = source.depth(vit), -1
        self._learns: bool | None = None
        self._size: Grid | None = None  # (H, W) for which it is built, if it has no table for it
        self.register_buffer(LAYOUT_KEY, encode(getattr(vit, 'layout', '')))

    @property
    def has_cls_token(self) -> bool:
        """Whether the model runs with a CLS token."""
        return self.source.has_cls_token(self.vit)

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens in front of the patches: CLS and registers."""
        return self.source.num_prefix_tokens(self.vit)

    @property
    def preprocess(self) -> dict[str, object] | None:
        """`mean` and `std` (0-255) and `bgr_to_rgb` for a data preprocessor.

        Weights of a file decide it, by the layout of their keys and the tag of the model's name;
        `None` where neither shows it.
        """
        layout = getattr(self.vit, 'layout', '') or (UNKNOWN if self.load_report else '')
        if not layout:  # the library's own weights, or random ones
            return self.source.preprocess(self.vit)
        named = any(sign in self.model_name for sign in '.:')
        return self.source.expected(self.vit, layout, named=named)

    @property
    def layer_channels(self) -> list[int]:
        """Channels after each layer (block or stage), wanted or not."""
        return self.source.embed_dims(self.vit)

    @property
    def layer_strides(self) -> list[Grid]:
        """(vertical, horizontal) stride after each layer in pixels."""
        return self.source.strides(self.vit)

    @property
    def fixed_size(self) -> Grid | None:
        """(H, W) of the only images that the model takes, `None` if it takes any size."""
        return self.source.fixed_size(self.vit)

    @property
    def native_size(self) -> Grid:
        """(H, W) of the images for which the published weights are made."""
        return self.source.native_size(self.vit)

    @property
    def built_size(self) -> Grid:
        """(H, W) of the images whose positions the model holds without resampling."""
        if self.fixed_size is not None or not hasattr(self, GRID_KEY):
            return self.fixed_size or self._size or self.native_size
        grid, steps = self.source.grid(self.vit), self.layer_strides[0]
        return tuple(cells * step for cells, step in zip(grid, steps, strict=True))

    def padded_size(self, size: Grid) -> Grid:
        """(H, W) to which images of a size are padded: full patches, or the fixed size."""
        return self.source.padded(self.vit, size)

    def _padded(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W), checked, with zeros below and right, up to `padded_size`."""
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise ValueError(
                f'images must be (B, {self.in_channels}, H, W), got {tuple(images.shape)}'
            )
        height, width = images.shape[-2:]
        rows, columns = self.padded_size((height, width))
        if (fixed := self.fixed_size) not in (None, (rows, columns)):
            raise ValueError(
                f'{self.model_name!r} is of fixed size, built for images of {fixed[0]}x{fixed[1]}, '
                f'got {height}x{width}: build it with img_size={(height, width)}'
            )
        return F.pad(images, (0, columns - width, 0, rows - height))

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

    def train(self, mode: bool = True) -> 'AdaptedModel':
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

    def _follow(self, layout: str) -> None:
        if layout != getattr(self.vit, 'layout', ''):
            self.source.follow_layout(self.vit, layout)

    def _record_layout(self) -> None:
        self.weights_layout.copy_(encode(getattr(self.vit, 'layout', '')))

    def _take_record(self, state_dict: dict[str, Tensor], prefix: str) -> bool:
        """Follow the layout that a whole model's checkpoint records; whether it is an older file.

        Older files record none: it stays that of this model's own file, or it is unknown.
        """
        held, name = getattr(self.vit, 'layout', ''), prefix + LAYOUT_KEY
        unrecorded = name not in state_dict and any(
            key.startswith(f'{prefix}vit.') for key in state_dict
        )
        if name in state_dict:
            self._follow(decode(state_dict[name]))
        elif unrecorded and not held:
            self._follow(UNKNOWN)
        state_dict[name] = encode(getattr(self.vit, 'layout', ''))
        return unrecorded and not held

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
