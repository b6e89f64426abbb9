"""Any timm architecture that gives intermediate features: stages, fixed sizes, prefix tokens.

Source: https://github.com/huggingface/pytorch-image-models (Apache-2.0).
"""

import importlib
import inspect
import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vit_backbones.checkpoints.layouts import OWN, to_timm
from vit_backbones.checkpoints.reshaping import spell
from vit_backbones.position import Grid
from vit_backbones.readout import Tokens, cropped
from vit_backbones.sources.base import Source, needs_cls_token
from vit_backbones.sources.timm_positions import (
    TIMM,
    Interpolation,
    biases_of_grid,
    fitted_axes,
    fitted_biases,
    num_prefix_rows,
    original_interpolation,
    with_positions,
)
from vit_backbones.sources.timm_trial import Trial, layers, run, shape_of

_TOLERANCE = 2  # cells by which a map may miss side / stride: patches that overlap or do not pad
# Look up tables by position; the meta device does not see that they are too short
_SIZED = ('MultiScaleVit',)


class TimmModel(Source):
    """Adapter of timm's models with `forward_intermediates`, run through that method.

    What a model takes and which parameters each of its outputs needs is found by trying it on
    PyTorch's meta device, which costs no arithmetic.

    Args:
        vit: The unpruned model; only names and sizes are kept of it.
        size: (H, W) for which it was built.
        in_channels: Channels of its images.
        fixed: (H, W) of the only images it shall take, if smaller than `size`: they are padded to
            that, and maps cropped back, for models that take squares only.

    Raises:
        ValueError: If timm cannot run it at that size.
    """

    _has_relative_positions = True

    def __init__(
        self, vit: nn.Module, size: Grid, in_channels: int = 3, fixed: Grid | None = None
    ) -> None:
        if getattr(vit, 'global_pool', None) == 'soft':
            vit.global_pool = ''  # Gemma's pools take whole pools only, and no map needs them
        self._in_channels = in_channels
        self._strides = [_two(info['reduction']) for info in vit.feature_info]
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
        """See `Source.tokens`; equal to timm's `forward_intermediates`."""
        if self._canvas is None:
            if self._fixed is None:
                down, across = self._strides[0]
                grid = (images.shape[-2] // down, images.shape[-1] // across)
                vit = self._positioned(vit, grid, pos_interp)
            return _intermediates(self, vit, images, indices=indices)
        rows, columns = images.shape[-2:]
        canvas = F.pad(images, (0, self._canvas[1] - columns, 0, self._canvas[0] - rows))
        outputs = _intermediates(self, vit, canvas, indices=indices)
        steps = (self._strides[index] for index in indices)
        return [
            cropped(output, (math.ceil(rows / down), math.ceil(columns / across)))
            for output, (down, across) in zip(outputs, steps, strict=True)
        ]

    def depth(self, vit: nn.Module) -> int:
        """See `Source.depth`."""
        return len(vit.feature_info)

    def embed_dims(self, vit: nn.Module) -> list[int]:
        """See `Source.embed_dims`."""
        return [info['num_chs'] for info in vit.feature_info]

    def strides(self, vit: nn.Module) -> list[Grid]:
        """See `Source.strides`."""
        return self._strides

    def layer_of(self, name: str, depth: int) -> int:
        """See `Source.layer_of`: the first output that needs it."""
        while name and name not in self._layers:
            name = name.rpartition('.')[0]
        return self._layers.get(name, depth + 1)

    def prune(self, vit: nn.Module, indices: list[int], *, keep_norm: bool) -> None:
        """See `Source.prune`; what timm leaves standing beyond is frozen."""
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
        """See `Source.keep_embedding`; what timm's `forward_head(..., pre_logits=True)` gives."""
        size = self.canvas(vit, self._fixed or native_size(vit))
        images = torch.zeros(2, self._in_channels, *size)
        try:
            shape = shape_of(_embeddings, vit, images)
        except Exception:  # each architecture refuses in its own way
            shape = ()
        if len(shape) != 2:
            super().keep_embedding(vit)
        self.embedding_dim = shape[1]

    def embedding(self, vit: nn.Module, images: Tensor, pos_interp: str) -> Tensor:
        """See `Source.embedding`; equal to timm's on the padded images."""
        rows, columns = images.shape[-2:]
        height, width = self.canvas(vit, (rows, columns))
        if self._fixed is None:
            down, across = self._strides[0]
            vit = self._positioned(vit, (rows // down, columns // across), pos_interp)
        return _embeddings(vit, F.pad(images, (0, width - columns, 0, height - rows)))

    def native_size(self, vit: nn.Module) -> Grid:
        """See `Source.native_size`."""
        return native_size(vit)

    def preprocess(self, vit: nn.Module) -> dict[str, object]:
        """See `Source.preprocess`; from timm's `pretrained_cfg`."""
        config = vit.pretrained_cfg
        return {
            'mean': [round(255 * value, 4) for value in config['mean']],
            'std': [round(255 * value, 4) for value in config['std']],
            'bgr_to_rgb': True,
        }

    def set_checkpointing(self, vit: nn.Module) -> None:
        """See `Source.set_checkpointing`; timm's own, non-reentrant."""
        try:
            vit.set_grad_checkpointing(True)
        except AssertionError as error:
            raise ValueError(f'with_cp=True: {type(vit).__name__} cannot: {error}') from error

    def set_input_size(self, vit: nn.Module, size: Grid, pos_interp: str) -> None:
        """See `Source.set_input_size`."""
        padded = self.padded(vit, size)
        if self._fixed in (None, padded):
            return
        # squares only, as on a canvas, are what timm cannot rebuild either
        if self._canvas is not None or not hasattr(vit, 'set_input_size'):
            raise ValueError(
                f'{type(vit).__name__} is built for {self._fixed[0]}x{self._fixed[1]} for good: '
                f'build another one with img_size={size}'
            )
        vit.set_input_size(img_size=padded)
        self._fixed = padded

    def fixed_size(self, vit: nn.Module) -> Grid | None:
        """See `Source.fixed_size`."""
        return self._fixed

    def canvas(self, vit: nn.Module, size: Grid) -> Grid:
        """(H, W) of what the model itself is given for images of a size."""
        return self._canvas or self.padded(vit, size)

    def in_channels(self, vit: nn.Module) -> int:
        """See `Source.in_channels`."""
        return self._in_channels

    def num_prefix_tokens(self, vit: nn.Module) -> int:
        """See `Source.num_prefix_tokens`; those that timm gives beside the maps."""
        given = 'return_prefix_tokens' in inspect.signature(vit.forward_intermediates).parameters
        return getattr(vit, 'num_prefix_tokens', 0) if given else 0

    def has_cls_token(self, vit: nn.Module) -> bool:
        """See `Source.has_cls_token`."""
        return self.num_prefix_tokens(vit) > 0 and getattr(vit, 'cls_token', None) is not None

    def drop_cls_token(self, vit: nn.Module) -> None:
        """See `Source.drop_cls_token`; class attention (CaiT, XCiT) needs it too."""
        if getattr(vit, 'cls_token', None) is not None:
            raise ValueError(needs_cls_token(vit))

    def norm(self, vit: nn.Module) -> nn.Module | None:
        """See `Source.norm`; models that pool by average keep a `fc_norm` only, so `None`."""
        # beside an `encoder` it is for pooled features
        norm = None if hasattr(vit, 'encoder') else getattr(vit, 'norm', None)
        return None if isinstance(norm, nn.Identity | nn.ModuleList) else norm

    def normed(self, vit: nn.Module, tokens: Tokens) -> Tokens:
        """See `Source.normed`."""
        norm = self.norm(vit)
        if not (isinstance(norm, nn.GroupNorm) or '2d' in type(norm).__name__):
            return super().normed(vit, tokens)
        maps = tokens.patches.transpose(1, 2).unflatten(2, tokens.grid)
        return _tokens(norm(maps))

    def position_name(self, vit: nn.Module) -> str | None:
        """See `Source.position_name`."""
        return None if num_prefix_rows(vit) is None else 'pos_embed'

    def grid(self, vit: nn.Module) -> Grid:
        """See `Source.grid`."""
        return vit.patch_embed.grid_size

    def keeps_grid(self, vit: nn.Module) -> bool:
        """See `Source.keeps_grid`."""
        return super().keeps_grid(vit) or any(biases_of_grid(vit))

    def num_position_prefix(self, vit: nn.Module) -> int:
        """See `Source.num_position_prefix`."""
        return num_prefix_rows(vit) or 0

    def interpolation(self, vit: nn.Module, pos_interp: str) -> Interpolation:
        """See `Source.interpolation`; the authors are those of `timm_positions`."""
        return TIMM if pos_interp == 'timm' else original_interpolation(vit)

    def translate(
        self, vit: nn.Module, tensors: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], str | None]:
        """See `Source.translate`; the layouts are those of `checkpoints.dialects`."""
        translated, dialect = to_timm(tensors, relative=self._has_relative_positions)
        foreign = dialect is not None and not dialect.startswith(OWN)
        vit.layout = dialect if foreign else ''
        if foreign:
            cls_row = self.has_cls_token(vit) and self.num_position_prefix(vit) > 0
            translated = spell(translated, vit.state_dict().keys(), cls_row=cls_row)
        return translated, dialect

    def convert(self, vit: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `Source.convert`; timm's own filter of the model's module, less positions.

        Raises:
            ValueError: If timm cannot resize a table, or stumbles over foreign keys.
        """
        kept = {name: t for name, t in tensors.items() if name == self.position_name(vit)}
        kept |= fitted_biases(vit, tensors)
        module = importlib.import_module(type(vit).__module__)
        convert = getattr(module, 'checkpoint_filter_fn', lambda rest, _: rest)
        rest = {name: tensor for name, tensor in tensors.items() if name not in kept}
        try:
            converted = convert(rest, vit) | kept
        except (RuntimeError, ValueError) as error:
            reason = first_line(error)
            raise ValueError(f'holds tables that timm cannot resize: {reason}') from error
        except (AttributeError, KeyError) as error:  # it looks up what foreign keys name
            raise ValueError(f'has keys that timm cannot convert: {first_line(error)}') from error
        return converted | fitted_axes(vit, converted)

    def _positioned(self, vit: nn.Module, grid: Grid, pos_interp: str) -> nn.Module:
        """The model with its positions resampled for a grid, where timm would do it otherwise."""
        if pos_interp == 'timm' or self.position_name(vit) is None:
            return vit
        return with_positions(vit, self.table(vit, grid, pos_interp), grid)

    def _try(self, vit: nn.Module, size: Grid) -> Trial | str:
        """What the model gives for such images; a reason if it refuses or misses its strides."""
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


def native_size(vit: nn.Module) -> Grid:
    """(H, W) of the images for which timm's weights of a model are made."""
    return tuple(vit.pretrained_cfg['input_size'][-2:])


def _intermediates(
    source: TimmModel, vit: nn.Module, images: Tensor, **options: object
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


def _two(reduction: int | Grid) -> Grid:
    return (reduction, reduction) if isinstance(reduction, int) else tuple(reduction)


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return str(error).strip().split('\n')[0].rstrip('.') or type(error).__name__
