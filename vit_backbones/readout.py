"""The tokens of a ViT, and the outputs that users want of them. Knows no model."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vit_backbones.arguments import NORMS, choice, integer
from vit_backbones.position import Grid, cells, resample_map

CLS_READOUTS = ('ignore', 'add', 'concat')


class PoolingError(ValueError):
    """A pooling that a model cannot do."""


class Tokens(NamedTuple):
    """The tokens of one layer.

    Attributes:
        patches: (B, h*w, C), row-major.
        prefix: (B, P, C): CLS first where there is one, then registers; P may be 0.
        grid: (h, w), carried along because a token count does not show a rectangle.
    """

    patches: Tensor
    prefix: Tensor
    grid: Grid


class JointTokens(NamedTuple):
    """The tokens of one layer, with others that run through the blocks with them.

    Attributes:
        extra: (B, Q, C), queries of a head.
        tokens: The image's own.
    """

    extra: Tensor
    tokens: Tokens


def featmap(tokens: Tokens, cls_readout: str = 'ignore') -> Tensor:
    """Patch tokens as a map (B, C, h, w), or (B, 2C, h, w) with `'concat'`.

    `'ignore'` leaves the CLS token out, `'add'` adds it to every patch, `'concat'` puts it behind
    every patch's channels.
    """
    patches = tokens.patches
    if cls_readout == 'add':
        patches = patches + tokens.prefix[:, :1]
    elif cls_readout == 'concat':
        patches = torch.cat([patches, tokens.prefix[:, :1].expand_as(patches)], dim=-1)
    # (B, h*w, C) -> (B, C, h*w) -> (B, C, h, w)
    return patches.transpose(1, 2).reshape(patches.shape[0], -1, *tokens.grid)


def cropped(tokens: Tokens, grid: Grid) -> Tokens:
    """The patches of the top left part of the grid; the prefix is kept."""
    maps = tokens.patches.unflatten(1, tokens.grid)[:, : grid[0], : grid[1]]
    return Tokens(maps.flatten(1, 2), tokens.prefix, grid)


def cls(tokens: Tokens) -> Tensor:
    """The CLS token, (B, C)."""
    return tokens.prefix[:, 0]


def raw(tokens: Tokens) -> Tensor:
    """All tokens, prefix first, (B, P + h*w, C)."""
    return torch.cat([tokens.prefix, tokens.patches], dim=1)


def avg_featmap(tokens: Tokens) -> Tensor:
    """The mean of the patch tokens, (B, C)."""
    return tokens.patches.mean(dim=1)


def max_patches(tokens: Tokens) -> Tensor:
    """The largest value of each channel over the patches, (B, C)."""
    return tokens.patches.amax(dim=1)


def cls_and_avg(tokens: Tokens) -> Tensor:
    """The CLS token, and behind it the mean of the patch tokens, (B, 2C)."""
    return torch.cat([cls(tokens), avg_featmap(tokens)], dim=-1)


def gem(tokens: Tokens, power: float = 3.0, floor: float = 1e-6) -> Tensor:
    """Generalised mean of the patch tokens, (B, C): the mean for power 1, the maximum for infinity.

    Values below `floor`, all negative ones among them, count as `floor`. Powers are taken in fp32.
    Source: Radenović et al., Fine-tuning CNN image retrieval with no human annotation, 2018.
    """
    powers = tokens.patches.float().clamp(min=floor).pow(power)
    return powers.mean(dim=1).pow(1 / power).to(tokens.patches.dtype)


Pooling = Callable[[Tokens], Tensor]
FORMATTERS: dict[str, Pooling] = {
    'featmap': featmap,
    'cls': cls,
    'cls_token': cls,
    'raw': raw,
    'avg_featmap': avg_featmap,
}
POOLINGS: dict[str, Pooling] = {
    'cls': cls,
    'avg': avg_featmap,
    'max': max_patches,
    'cls+avg': cls_and_avg,
    'gem': gem,
}


@dataclass(frozen=True)
class Readout:
    """The outputs that a caller wants of the tokens of each layer.

    The arguments of that name of `ViTFeatBackbone`, checked.
    """

    out_type: str = 'featmap'
    pool: str | None = None
    cls_readout: str = 'ignore'
    norm: str = 'last'
    out_stride: int | None = None

    def __post_init__(self) -> None:
        choice('out_type', self.out_type, FORMATTERS)
        choice('cls_readout', self.cls_readout, CLS_READOUTS)
        choice('norm', self.norm, NORMS)
        if self.out_stride is not None:
            object.__setattr__(self, 'out_stride', integer('out_stride', self.out_stride, 1))
        if self.pool is None:
            return
        choice('pool', self.pool, [*POOLINGS, 'attn', 'model'])
        if (self.out_type, self.cls_readout, self.out_stride) != ('featmap', 'ignore', None):
            raise ValueError(
                f'pool={self.pool!r} gives embeddings in place of out_type={self.out_type!r}, '
                f'cls_readout={self.cls_readout!r} and out_stride={self.out_stride}: leave these '
                f'three at their defaults'
            )

    def check_form(self) -> None:
        """Refuse options of maps for other outputs; set later, a form may leave them out."""
        given = dict(cls_readout=self.cls_readout, out_stride=self.out_stride)
        for name, value in given.items():
            if self.out_type != 'featmap' and value not in ('ignore', None):
                raise ValueError(
                    f"{name}={value!r} is for out_type='featmap' and changes nothing for "
                    f'out_type={self.out_type!r}: leave it out'
                )

    def check_cls_token(self, model_name: str, has_cls_token: bool) -> None:
        """Refuse outputs that need a CLS token, for a model that runs without one."""
        for name, values, instead in (
            ('cls_readout', ('add', 'concat'), 'ignore'),
            ('out_type', ('cls', 'cls_token'), 'avg_featmap'),
            ('pool', ('cls', 'cls+avg'), 'avg'),
        ):
            if not has_cls_token and (value := getattr(self, name)) in values:
                kind = PoolingError if name == 'pool' else ValueError
                raise kind(
                    f'{name}={value!r} needs a CLS token, and {model_name!r} has none here; use '
                    f'{name}={instead!r}'
                )

    def check_embedding(self, out_indices: tuple[int, ...], depth: int, masked: bool) -> None:
        """Refuse options with which `pool='model'` would not give the library's own embedding."""
        if out_indices != (depth - 1,) or self.norm == 'none' or masked:
            raise PoolingError(
                f"pool='model' gives the library's embedding: of its last block, {depth - 1}, "
                f'normed, and of whole images; got out_indices={out_indices}, '
                f"norm={self.norm!r}, mask_padding={masked}: use pool='avg'"
            )

    def check_parts(
        self, pool: str | None, out_indices: Sequence[int], depth: int, lost_norm: bool
    ) -> None:
        """Refuse outputs, set later, of parts without which a model with `pool` was built."""
        if self.pool in ('attn', 'model') and self.pool != pool:
            raise PoolingError(
                f'pool={self.pool!r} needs parts of the model that are kept only if it is built '
                f'with pool={self.pool!r}: build another one'
            )
        if lost_norm and any(self.norms(index, depth) for index in out_indices):
            raise ValueError(
                f'norm={self.norm!r} needs the final norm, which was removed because the model was '
                f'built for outputs without it: build another one with norm={self.norm!r}'
            )

    def norms(self, index: int, depth: int) -> bool:
        """Whether the output of block `index` gets the final norm, if the model has one."""
        return self.norm == 'all' or (self.norm == 'last' and index == depth - 1)

    def channels(self, dims: Sequence[int]) -> tuple[int, ...]:
        """Channels of the outputs of layers of `dims` channels."""
        concat = self.pool is None and (self.out_type, self.cls_readout) == ('featmap', 'concat')
        factor = 2 if concat or self.pool == 'cls+avg' else 1
        return tuple(factor * dim for dim in dims)

    def strides(self, steps: Sequence[Grid]) -> tuple[int | Grid, ...]:
        """Strides of the outputs of layers with (vertical, horizontal) strides `steps`."""
        return tuple(self.out_stride or (v if v == h else (v, h)) for v, h in steps)

    def form(
        self,
        tokens: Tokens,
        size: Grid,
        steps: Grid,
        *,
        sizes: Sequence[Grid] | None = None,
        attend: Pooling | None = None,
    ) -> Tensor:
        """The output of one layer.

        Args:
            tokens: The layer's tokens, normed if `norm` says so.
            size: (H, W) of the batch in pixels.
            steps: (vertical, horizontal) stride of the layer.
            sizes: (H, W) of each image if padding is masked: pooling and resampling leave it out.
            attend: The model's attention pooling, for `pool='attn'`.
        """
        if sizes and (self.pool or self.out_stride or self.out_type == 'avg_featmap'):
            each = zip(_without_padding(tokens, sizes, steps), sizes, strict=True)
            outputs = [self.form(one, own, steps, attend=attend) for one, own in each]
            return torch.cat(outputs if outputs[0].ndim < 4 else self._padded(outputs, size))
        if self.pool is not None:
            return (attend if self.pool == 'attn' else POOLINGS[self.pool])(tokens)
        if self.out_type != 'featmap':
            return FORMATTERS[self.out_type](tokens)
        maps = featmap(tokens, self.cls_readout)
        if self.out_stride is None:
            return maps
        target = cells(size, (self.out_stride, self.out_stride))
        return resample_map(maps, target, tuple(self.out_stride / step for step in steps))

    def _padded(self, maps: Sequence[Tensor], size: Grid) -> list[Tensor]:
        rows, columns = cells(size, (self.out_stride, self.out_stride))
        return [F.pad(m, (0, columns - m.shape[3], 0, rows - m.shape[2])) for m in maps]


def _without_padding(tokens: Tokens, sizes: Sequence[Grid], steps: Grid) -> Iterator[Tokens]:
    """The tokens of each image whose patches hold pixels of it."""
    for at, own in enumerate(sizes):
        one = Tokens(tokens.patches[at : at + 1], tokens.prefix[at : at + 1], tokens.grid)
        yield cropped(one, cells(own, steps))
