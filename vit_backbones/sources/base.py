"""The interface between the backbone and a model library."""

import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from operator import attrgetter
from pathlib import Path

from torch import Tensor, nn

from vit_backbones.attention import Attention
from vit_backbones.position import Grid, cells, resample_positions
from vit_backbones.readout import PoolingError, Tokens, cls

INSTEAD = 'PlainMaskHead (SegPlainMaskHead in mmseg) takes the maps of any backbone'


class Source(ABC):
    """Knows the parts of one kind of model, and how to run it.

    An adapter holds no weights: every method takes the library's module, so that wrappers (EMA
    copies, FSDP) may replace it and parameters keep the library's names.

    A *layer* is a block, or a stage of a hierarchical model: `out_indices` counts them.
    """

    embedding_dim: int | None = None  # channels of the model's own embedding, where it is kept
    calls_layers = True  # by their `forward`, before which FSDP gathers them

    def __deepcopy__(self, memo: dict[int, object]) -> 'Source':
        """A shallow copy; the constants in an adapter cannot be copied deeply."""
        return copy.copy(self)

    @abstractmethod
    def tokens(
        self, vit: nn.Module, images: Tensor, indices: list[int], pos_interp: str
    ) -> list[Tokens]:
        """Un-normed tokens of padded images (B, C, H, W) after the layers `indices`, ascending."""

    def set_attention(self, vit: nn.Module, attention: Attention) -> None:
        """Let blocks attend in windows, to real pixels only, or with relative positions.

        Such a source takes `sizes`, (H, W) of each image, in `tokens`; others raise `ValueError`.
        """
        raise ValueError(
            f'{type(vit).__name__} runs with its own attention here: window_size, use_rel_pos and '
            f"mask_padding need a plain ViT of source='timm', which reads its checkpoints too"
        )

    def prepare_joint(self, vit: nn.Module, num_blocks: int) -> None:
        """Get the last blocks ready to run queries too; `ValueError` if they cannot."""
        raise cannot_join(vit, 'does not run here block by block, as plain ViTs do')

    @abstractmethod
    def depth(self, vit: nn.Module) -> int:
        """Number of layers."""

    @abstractmethod
    def embed_dims(self, vit: nn.Module) -> list[int]:
        """Channels after each layer."""

    @abstractmethod
    def strides(self, vit: nn.Module) -> list[Grid]:
        """(vertical, horizontal) stride after each layer in pixels."""

    @abstractmethod
    def layer_of(self, name: str, depth: int) -> int:
        """Layer of a parameter or module: 0 embeddings, i + 1 layer i, depth + 1 the rest.

        A module that holds several layers belongs to the last of them.
        """

    @abstractmethod
    def prune(self, vit: nn.Module, indices: list[int], *, keep_norm: bool) -> None:
        """Remove or freeze the classifier, later layers and, unless kept, the final norm."""

    @abstractmethod
    def native_size(self, vit: nn.Module) -> Grid:
        """(H, W) of the images for which the published weights are made."""

    @abstractmethod
    def preprocess(self, vit: nn.Module) -> dict[str, object]:
        """`mean`, `std` (0-255, RGB order) and `bgr_to_rgb`, as data preprocessors take them."""

    def expected(
        self, vit: nn.Module, layout: str, *, named: bool = False
    ) -> dict[str, object] | None:
        """`preprocess` of weights from a file of a layout; `None` where nothing shows it.

        `named`: the model's name stands for weights, as with a tag.
        """
        return self.preprocess(vit)

    def follow_layout(self, vit: nn.Module, layout: str) -> None:
        """Run as the authors of a file of a layout do; `''` stands for weights of no file."""
        vit.layout = layout

    def remark(
        self, vit: nn.Module, model_name: str, path: str | Path | None, names: Collection[str]
    ) -> str | None:
        """A warning on weights that fit, of a file at `path` with keys `names` or the library's."""
        return None

    @abstractmethod
    def set_checkpointing(self, vit: nn.Module) -> None:
        """Recompute each block in the backward pass; `ValueError` if the model cannot."""

    @abstractmethod
    def set_input_size(self, vit: nn.Module, size: Grid, pos_interp: str) -> None:
        """Rebuild for good for images of (H, W), padded; `ValueError` if only one size works."""

    def padded(self, vit: nn.Module, size: Grid) -> Grid:
        """(H, W) of padded images: multiples of the largest stride, or the fixed size."""
        fixed = self.fixed_size(vit) or (0, 0)
        steps = [max(steps) for steps in zip(*self.strides(vit), strict=True)]
        if all(0 <= f - s < step for f, s, step in zip(fixed, size, steps, strict=True)):
            return fixed
        return whole(size, [steps])

    def fixed_size(self, vit: nn.Module) -> Grid | None:
        """(H, W) of the only images that the model takes; `None` for any size."""
        return None

    def in_channels(self, vit: nn.Module) -> int:
        """Channels of the images; by default those of the first convolution."""
        return next(m.in_channels for m in vit.modules() if isinstance(m, nn.Conv2d))

    def num_prefix_tokens(self, vit: nn.Module) -> int:
        """CLS, distillation and register tokens in front of the patches."""
        return 0

    def has_cls_token(self, vit: nn.Module) -> bool:
        """Whether the first prefix token is a CLS token."""
        return False

    def norm(self, vit: nn.Module) -> nn.Module | None:
        """The final norm, `None` where the model has none."""
        return None

    def normed(self, vit: nn.Module, tokens: Tokens) -> Tokens:
        """Tokens after the final norm."""
        norm = self.norm(vit)
        return tokens._replace(patches=norm(tokens.patches), prefix=norm(tokens.prefix))

    def keep_attention_pooling(self, vit: nn.Module) -> None:
        """Let `prune` keep the model's own attention pooling; `PoolingError` if it has none."""
        raise PoolingError(
            f"pool='attn': {type(vit).__name__} has no attention pooling here; use pool='avg'"
        )

    def attention_pooled(self, vit: nn.Module, tokens: Tokens) -> Tensor:
        """Embeddings (B, C) of the tokens by the model's own attention pooling."""
        raise NotImplementedError

    def keep_embedding(self, vit: nn.Module) -> None:
        """Let `prune` keep the model's own embedding, or `PoolingError`; sets `embedding_dim`."""
        raise PoolingError(
            f"pool='model': {type(vit).__name__} has no embedding of its own here; use pool='avg'"
        )

    def embedding(self, vit: nn.Module, images: Tensor, pos_interp: str) -> Tensor:
        """The model's own embeddings (B, C) of images, padded as for `tokens`."""
        (tokens,) = self.tokens(vit, images, [self.depth(vit) - 1], pos_interp)
        return self.own_pooled(vit, tokens if self.norm(vit) is None else self.normed(vit, tokens))

    def own_pooled(self, vit: nn.Module, tokens: Tokens) -> Tensor:
        """The model's own embedding of normed tokens; by default the CLS token."""
        return cls(tokens)

    def drop_cls_token(self, vit: nn.Module) -> None:
        """Remove a CLS token and its position; `ValueError` if the model cannot run without."""
        if self.has_cls_token(vit):
            raise ValueError(needs_cls_token(vit))

    def position_name(self, vit: nn.Module) -> str | None:
        """State-dict key of the learned position table, `None` if there is none."""
        return None

    def keeps_grid(self, vit: nn.Module) -> bool:
        """Whether a file has to record the `grid` of the model's tables."""
        return self.position_name(vit) is not None

    def grid(self, vit: nn.Module) -> Grid:
        """(h, w) of the model's tables."""
        raise NotImplementedError

    def num_position_prefix(self, vit: nn.Module) -> int:
        """Rows of the position table that belong to prefix tokens."""
        return 0

    def interpolation(self, vit: nn.Module, pos_interp: str) -> Mapping[str, object]:
        """Keyword arguments of `resample_positions` for `'timm'` or `'original'`."""
        return {}

    def table(self, vit: nn.Module, grid: Grid, pos_interp: str) -> Tensor:
        """The position table at another grid, (1, prefix + h*w, C)."""
        table = attrgetter(self.position_name(vit))(vit)  # no parameter while FSDP runs
        return resample_positions(
            table if table.ndim > 2 else table[None],  # (N, C) of an nn.Embedding
            self.grid(vit),
            grid,
            num_prefix=self.num_position_prefix(vit),
            **self.interpolation(vit, pos_interp),
        )

    def patch_embed_name(self) -> str | None:
        """State-dict key of the patch embedding's weight (C, in_channels, ph, pw)."""
        return None

    def of_width(self, model_name: str, width: int) -> str | None:
        """Name of a model of the same kind with another embedding width, if there is one."""
        return None

    def translate(
        self, vit: nn.Module, tensors: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], str | None]:
        """Another project's checkpoint under the model's keys, and the name of its layout.

        `None` for an unknown layout; `ValueError` where the model cannot compute the same.
        """
        return tensors, None

    def convert(self, vit: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The library's own tensors, with any `GRID_KEY`, in the model's keys and shapes."""
        return tensors


def cannot_join(vit: nn.Module, reason: str) -> ValueError:
    """The refusal to run queries in a model's blocks."""
    return ValueError(
        f'{type(vit).__name__} {reason}, so that no queries run in its blocks: {INSTEAD}'
    )


def needs_cls_token(vit: nn.Module) -> str:
    """The message that refuses `with_cls_token=False`."""
    return (
        f'with_cls_token=False: {type(vit).__name__} cannot run without its CLS token; '
        f"out_type='featmap' leaves it out of the maps"
    )


def whole(size: Grid, strides: Sequence[Grid]) -> Grid:
    """(H, W) of images padded to multiples of the largest of some strides."""
    steps = [max(steps) for steps in zip(*strides, strict=True)]
    return tuple(n * step for n, step in zip(cells(size, steps), steps, strict=True))


def first_line(error: Exception) -> str:
    """The first line of a library's error."""
    return str(error).strip().split('\n')[0].rstrip('.') or type(error).__name__


def layer_in(blocks: str, name: str, depth: int, behind: tuple[str, ...]) -> int:
    """`Source.layer_of` for a list `blocks`, and parts `behind` it."""
    if block := re.match(rf'{re.escape(blocks)}\.\D*(\d+)', name):
        return int(block[1]) + 1
    contains = not name or f'{blocks}.'.startswith(f'{name}.')
    return depth + 1 if contains or f'{name}.'.startswith(tuple(f'{b}.' for b in behind)) else 0


def two(size: int | Grid) -> Grid:
    """(vertical, horizontal) of a size that may be one number for both."""
    return (size, size) if isinstance(size, int) else tuple(size)
