"""Any timm architecture with intermediate features: stages, fixed sizes, prefix tokens.

Source: https://github.com/huggingface/pytorch-image-models (Apache-2.0).
"""

import importlib
import inspect
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vit_backbones.attention import REL_POS
from vit_backbones.position import Grid, cells, resample_relative
from vit_backbones.readout import Tokens, cropped
from vit_backbones.sources.base import first_line, needs_cls_token, two
from vit_backbones.sources.timm_base import TimmSource
from vit_backbones.sources.timm_positions import biases_of_grid, fitted_axes, fitted_biases
from vit_backbones.sources.timm_trial import Trial, layers, run, shape_of

_TOLERANCE = 2  # cells by which a map may miss side / stride: patches that overlap or do not pad
# These look up tables by position; the meta device does not notice tables that are too short
_SIZED = ('MultiScaleVit',)


class TimmAny(TimmSource):
    """Adapter of timm's models with `forward_intermediates`, run through that method.

    A trial on PyTorch's meta device, without arithmetic, finds the sizes that a model takes and the
    parameters that each of its outputs needs.

    Args:
        vit: The unpruned model; the adapter keeps only names and sizes.
        size: (H, W) for which it was built.
        fixed: For models that take only squares: the only (H, W) of images, smaller than
            `size`. They are padded to `size`, and maps are cropped.
    """

    def __init__(
        self, vit: nn.Module, size: Grid, in_channels: int = 3, fixed: Grid | None = None
    ) -> None:
        if getattr(vit, 'global_pool', None) == 'soft':
            vit.global_pool = ''  # Gemma's pooling refuses incomplete pools, and no map needs it
        self._in_channels = in_channels
        self._strides = [two(info['reduction']) for info in vit.feature_info]
        self._fixed: Grid | None = None
        trial: Trial | str = 'its tables are for one size'
        if type(vit).__name__ not in _SIZED:
            trial = self._try(vit, self.padded(vit, (size[0] + max(size) // 2, size[1] + 1)))
        for built in (size, self.padded(vit, size)):
            if isinstance(trial, str):
                trial, self._fixed = self._try(vit, built), built
        if isinstance(trial, str):
            raise ValueError(f'timm does not run it on {size[0]}x{size[1]}: {trial}')
        self._canvas = self._fixed if fixed else None
        self._fixed = fixed or self._fixed
        self._uses = trial.uses
        self._layers = layers(vit, trial)

    def tokens(
        self, vit: nn.Module, images: Tensor, indices: list[int], pos_interp: str
    ) -> list[Tokens]:
        """Equal to timm's `forward_intermediates`."""
        vit, canvas = self._placed(vit, images, pos_interp, self._canvas)
        outputs = _intermediates(self, vit, canvas, indices=indices)
        if self._canvas is None:
            return outputs
        grids = [cells(images.shape[-2:], self._strides[index]) for index in indices]
        return [cropped(output, grid) for output, grid in zip(outputs, grids, strict=True)]

    def depth(self, vit: nn.Module) -> int:
        return len(vit.feature_info)

    def embed_dims(self, vit: nn.Module) -> list[int]:
        return [info['num_chs'] for info in vit.feature_info]

    def strides(self, vit: nn.Module) -> list[Grid]:
        return self._strides

    def layer_of(self, name: str, depth: int) -> int:
        """The first output that needs it."""
        while name and name not in self._layers:
            name = name.rpartition('.')[0]
        return self._layers.get(name, depth + 1)

    def prune(self, vit: nn.Module, indices: list[int], *, keep_norm: bool) -> None:
        """Freezes the unused parts that timm does not prune."""
        if self.embedding_dim is not None:
            vit.reset_classifier(0)
            return
        info = list(vit.feature_info)
        vit.prune_intermediate_layers([max(indices)], prune_norm=not keep_norm, prune_head=True)
        vit.feature_info = info
        norm = self.norm(vit) if keep_norm else None
        used = set() if norm is None else set(norm.parameters())
        for name, parameter in vit.named_parameters():
            if not (parameter in used or self._uses.get(name, set()) & set(indices)):
                parameter.requires_grad_(False)

    def keep_embedding(self, vit: nn.Module) -> None:
        """Timm's `forward_head(..., pre_logits=True)`."""
        size = self.canvas(vit, self._fixed or self.native_size(vit))
        images = torch.zeros(2, self._in_channels, *size)
        try:
            shape = shape_of(_embeddings, vit, images)
        except Exception:  # each architecture refuses in its own way
            shape = ()
        if len(shape) != 2:
            super().keep_embedding(vit)
        self.embedding_dim = shape[1]

    def embedding(self, vit: nn.Module, images: Tensor, pos_interp: str) -> Tensor:
        """Equal to timm's on the padded images."""
        canvas = self.canvas(vit, tuple(images.shape[-2:]))
        return _embeddings(*self._placed(vit, images, pos_interp, canvas))

    def set_input_size(self, vit: nn.Module, size: Grid, pos_interp: str) -> None:
        padded = self.padded(vit, size)
        if self._fixed is None:
            self._resize_tables(vit, padded, pos_interp)
        if self._fixed in (None, padded):
            return
        # timm cannot rebuild models of squares either, which run on a canvas
        if self._canvas is not None or not hasattr(vit, 'set_input_size'):
            raise ValueError(
                f'{type(vit).__name__} is built for {self._fixed[0]}x{self._fixed[1]} for good: '
                f'build another one with img_size={size}'
            )
        vit.set_input_size(img_size=padded)
        self._fixed = padded

    def fixed_size(self, vit: nn.Module) -> Grid | None:
        return self._fixed

    def canvas(self, vit: nn.Module, size: Grid) -> Grid:
        """See `TimmSource.canvas`."""
        return self._canvas or super().canvas(vit, size)

    def in_channels(self, vit: nn.Module) -> int:
        return self._in_channels

    def num_prefix_tokens(self, vit: nn.Module) -> int:
        """Only those that timm returns beside the maps."""
        given = 'return_prefix_tokens' in inspect.signature(vit.forward_intermediates).parameters
        return getattr(vit, 'num_prefix_tokens', 0) if given else 0

    def has_cls_token(self, vit: nn.Module) -> bool:
        return self.num_prefix_tokens(vit) > 0 and getattr(vit, 'cls_token', None) is not None

    def drop_cls_token(self, vit: nn.Module) -> None:
        """Class attention (CaiT, XCiT) needs it too."""
        if getattr(vit, 'cls_token', None) is not None:
            raise ValueError(needs_cls_token(vit))

    def normed(self, vit: nn.Module, tokens: Tokens) -> Tokens:
        norm = self.norm(vit)
        if not (isinstance(norm, nn.GroupNorm) or '2d' in type(norm).__name__):
            return super().normed(vit, tokens)
        maps = tokens.patches.transpose(1, 2).unflatten(2, tokens.grid)
        return _tokens(norm(maps))

    def keeps_grid(self, vit: nn.Module) -> bool:
        return super().keeps_grid(vit) or any(biases_of_grid(vit))

    def convert(self, vit: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """By the filter in timm's module of the model, but for positions."""
        kept = {name: t for name, t in tensors.items() if name == self.position_name(vit)}
        kept |= fitted_biases(vit, tensors)
        module = importlib.import_module(type(vit).__module__)
        convert = getattr(module, 'checkpoint_filter_fn', lambda rest, _: rest)
        rest = {name: tensor for name, tensor in tensors.items() if name not in kept}
        try:
            converted = convert(rest, vit) | kept
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f'holds tables that timm cannot resize: {first_line(error)}'
            ) from error
        except (AttributeError, KeyError) as error:  # foreign keys
            raise ValueError(f'has keys that timm cannot convert: {first_line(error)}') from error
        return converted | fitted_axes(vit, converted)

    def _resize_tables(self, vit: nn.Module, size: Grid, pos_interp: str) -> None:
        """Resample tables that fit images of any size (SAM's); those of windows stay."""
        if self.position_name(vit) is None:
            return
        grid = cells(size, self._strides[0])
        table = self.table(vit, grid, pos_interp).detach()
        (vit if hasattr(vit, 'set_input_size') else vit.patch_embed).set_input_size(img_size=size)
        vit.pos_embed.data = table
        for name, weight in vit.named_parameters():
            block = vit.get_submodule(name.rpartition('.attn.')[0])
            if name.endswith(REL_POS) and not block.window_size:
                side = grid[0] if name.endswith(REL_POS[0]) else grid[1]
                weight.data = resample_relative(weight.detach(), 2 * side - 1)

    def _placed(
        self, vit: nn.Module, images: Tensor, pos_interp: str, canvas: Grid | None
    ) -> tuple[nn.Module, Tensor]:
        """The model with positions for images, and the images, padded to a canvas if any."""
        rows, columns = images.shape[-2:]
        if self._fixed is None:
            down, across = self._strides[0]
            vit = self._positioned(vit, (rows // down, columns // across), pos_interp)
        if canvas is None:
            return vit, images
        return vit, F.pad(images, (0, canvas[1] - columns, 0, canvas[0] - rows))

    def _try(self, vit: nn.Module, size: Grid) -> Trial | str:
        """A trial on images of a size, or the reason why the model refuses them."""
        images, forward = torch.zeros(1, self._in_channels, *size), partial(_intermediates, self)
        try:
            trial = run(forward, vit, images.to('meta'))
        except Exception as error:  # each architecture refuses in its own way
            if 'meta' not in str(error):
                return first_line(error)
            try:
                trial = run(forward, vit, images)  # a few look into their tensors
            except Exception as again:
                return first_line(again)
        if len(trial.grids) != len(self._strides):
            return f'it has {len(trial.grids)} layers of {len(self._strides)}: was it pruned?'
        for (rows, columns), (down, across) in zip(trial.grids, self._strides, strict=True):
            misses = abs(rows - size[0] / down), abs(columns - size[1] / across)
            if max(misses) > _TOLERANCE:
                return f'it gives {rows}x{columns} cells for a stride of {down}x{across}'
        return trial


def _intermediates(
    source: TimmAny, vit: nn.Module, images: Tensor, **options: object
) -> list[Tokens]:
    if source.num_prefix_tokens(vit):  # Eva stumbles over the option where there are none
        options['return_prefix_tokens'] = True
    maps = vit.forward_intermediates(images, stop_early=True, intermediates_only=True, **options)
    return [_tokens(*both) if isinstance(both, tuple) else _tokens(both) for both in maps]


def _embeddings(vit: nn.Module, images: Tensor) -> Tensor:
    return vit.forward_head(vit.forward_features(images), pre_logits=True)


def _tokens(maps: Tensor, prefix: Tensor | None = None) -> Tokens:
    """Tokens of maps (B, C, h, w) and prefix tokens (B, P, C)."""
    patches = maps.flatten(2).transpose(1, 2)  # (B, C, h, w) -> (B, h*w, C)
    return Tokens(patches, patches[:, :0] if prefix is None else prefix, tuple(maps.shape[-2:]))
