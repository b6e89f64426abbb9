"""A library's model with its adapter: its layers, its sizes and its weights."""

from collections.abc import Callable

import torch.nn.functional as F
from mmengine.model import BaseModule, initialize
from torch import Tensor, nn

from vit_backbones.arguments import check_type
from vit_backbones.checkpoints.fitting import GRID_KEY, LAYOUT_KEY
from vit_backbones.checkpoints.origin import UNKNOWN, decode, encode
from vit_backbones.position import Grid
from vit_backbones.sources.base import Source
from vit_backbones.weights import Weights


class AdaptedModel(BaseModule):
    """A library's module (`vit`) with the adapter that knows it (`source`).

    Attributes:
        model_name: As given, or the module's type.
        weights: Loads them.
        pos_interp: As an argument of `Source`'s methods.
        depth: Blocks (or stages) of the architecture, pruned ones included.
    """

    model_name: str
    in_channels: int
    pos_interp: str
    weights: Weights

    def __init__(
        self, source: Source, vit: nn.Module, init_cfg: dict | list[dict] | None = None
    ) -> None:
        super().__init__(init_cfg)
        self.source, self.vit = source, vit
        self.depth = source.depth(vit)
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
        if not isinstance(images, Tensor):
            raise TypeError(f'images must be a tensor (B, C, H, W), got {type(images).__name__}')
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise ValueError(
                f'images must be (B, {self.in_channels}, H, W), got {tuple(images.shape)}'
            )
        if 0 in images.shape:
            raise ValueError(f'images must hold at least one pixel, got {tuple(images.shape)}')
        check_type('images', images, self.vit)
        height, width = images.shape[-2:]
        rows, columns = self.padded_size((height, width))
        if (fixed := self.fixed_size) not in (None, (rows, columns)):
            raise ValueError(
                f'{self.model_name!r} is of fixed size, built for images of {fixed[0]}x{fixed[1]}, '
                f'got {height}x{width}: build it with img_size={(height, width)}'
            )
        return F.pad(images, (0, columns - width, 0, rows - height))

    @property
    def load_report(self) -> str | None:
        """Summary of the loaded checkpoint in one line; `None` without one."""
        return self.weights.report

    @property
    def holds_weights(self) -> bool:
        """Whether weights were loaded, or came with the module given."""
        return self.weights.came

    @property
    def is_init(self) -> bool:
        """MMEngine's name for `holds_weights`; settable as there."""
        return self.weights.came

    @is_init.setter
    def is_init(self, value: bool) -> None:
        self.weights.came = value

    def apply(self, fn: Callable[[nn.Module], None]) -> 'AdaptedModel':
        """Call `fn` on every module, unless it is a parent's `init_cfg` and weights were loaded."""
        initialises = getattr(fn, '__module__', None) == initialize.__module__
        return self if initialises and self.holds_weights else super().apply(fn)

    def init_weights(self) -> None:
        """Apply `init_cfg` once; weights that were loaded stay as they are.

        MMEngine's own would go on to the library's module, whose `init_weights` draws them anew.
        """
        self.weights.initialise(self, self.vit, self.pos_interp)
        self._record_layout()

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        """Fit a whole model's checkpoint that was saved at another `img_size`."""
        if self._take_record(state_dict, prefix):
            self.weights.note_no_record(self.vit, self.pos_interp)
        self.weights.fit_state_dict(self.vit, state_dict, prefix, self.pos_interp)
        if hasattr(self, GRID_KEY):
            state_dict[prefix + GRID_KEY] = getattr(self, GRID_KEY)
        super()._load_from_state_dict(state_dict, prefix, *args)

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
