"""What an adapter of a model library has to know."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from vit_backbones.attention import Attention
from vit_backbones.position import Grid, resample_positions
from vit_backbones.readout import PoolingError, Tokens, cls


class BuildOptions(NamedTuple):
    """What every source is told about the model that it shall build.

    Attributes:
        pretrained: Load the source's own published weights.
        img_size: (H, W) to build for, `None` for the model's own.
        patch_size: (vertical, horizontal), `None` for the model's own.
        in_channels: Channels of the images; `None` for those of a model that exists already.
        drop_path_rate: Stochastic depth of the last block.
        pos_interp: `'timm'` or `'original'`.
    """

    pretrained: bool = False
    img_size: Grid | None = None
    patch_size: Grid | None = None
    in_channels: int | None = 3
    drop_path_rate: float = 0.0
    pos_interp: str = 'timm'


class Source(ABC):
    """Knows how one kind of model is made up and how it is run.

    An adapter holds no weights: every method takes the library's module, so that wrappers (EMA
    copies, FSDP) may replace it and parameter names stay those of the library.

    A *layer* is what `out_indices` counts: a block, or a stage of a hierarchical model.

    Attributes:
        embedding_dim: Channels of the model's own embedding, where it is kept.
    """

    embedding_dim: int | None = None

    def __deepcopy__(self, memo: dict[int, object]) -> 'Source':
        """Another one in the same state; the constants in it cannot be copied deeply."""
        return copy.copy(self)

    @abstractmethod
    def tokens(
        self, vit: nn.Module, images: Tensor, indices: list[int], pos_interp: str
    ) -> list[Tokens]:
        """Un-normed tokens after the layers `indices` (ascending, 0-based).

        Args:
            vit: The library's module.
            images: (B, C, H, W), H and W multiples of the largest stride.
            indices: Layers wanted.
            pos_interp: `'timm'` or `'original'`.
        """

    def set_attention(self, vit: nn.Module, attention: Attention) -> None:
        """Run blocks in windows, over real pixels alone, with relative positions.

        A source that does takes `sizes`, (H, W) of each image, in `tokens`.

        Raises:
            ValueError: If the model cannot.
        """
        raise ValueError(
            f'{type(vit).__name__} runs with its own attention here: window_size, use_rel_pos and '
            f"mask_padding need a plain ViT of source='timm', which reads its checkpoints too"
        )

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
        """Remove or freeze what the layers `indices` do not need: classifier, later layers.

        The final norm is one of these unless it is kept.
        """

    @abstractmethod
    def native_size(self, vit: nn.Module) -> Grid:
        """(H, W) of the images for which the published weights are made."""

    @abstractmethod
    def preprocess(self, vit: nn.Module) -> dict[str, object]:
        """`mean`, `std` (0-255, RGB order) and `bgr_to_rgb`, as data preprocessors take them."""

    @abstractmethod
    def set_checkpointing(self, vit: nn.Module) -> None:
        """Recompute each block in the backward pass.

        Raises:
            ValueError: If the model cannot.
        """

    @abstractmethod
    def set_input_size(self, vit: nn.Module, size: Grid, pos_interp: str) -> None:
        """Rebuild for good what depends on the size of images, for padded (H, W) ones.

        Raises:
            ValueError: If the model has one size only.
        """

    def padded(self, vit: nn.Module, size: Grid) -> Grid:
        """(H, W) to which images are padded: what the largest stride divides, or the fixed size."""
        fixed = self.fixed_size(vit) or (0, 0)
        steps = [max(steps) for steps in zip(*self.strides(vit), strict=True)]
        if all(0 <= f - s < step for f, s, step in zip(fixed, size, steps, strict=True)):
            return fixed
        return tuple((s + step - 1) // step * step for s, step in zip(size, steps, strict=True))

    def fixed_size(self, vit: nn.Module) -> Grid | None:
        """(H, W) of the only images the model takes; `None` where any size is welcome."""
        return None

    def in_channels(self, vit: nn.Module) -> int:
        """Channels of the images; here those of the first convolution, which makes the patches."""
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
        """Let `prune` leave the model's own attention pooling.

        Raises:
            PoolingError: If the model has none.
        """
        raise PoolingError(
            f"pool='attn': {type(vit).__name__} has no attention pooling here; use pool='avg'"
        )

    def attention_pooled(self, vit: nn.Module, tokens: Tokens) -> Tensor:
        """Embeddings (B, C) of the tokens by that pooling."""
        raise NotImplementedError

    def keep_embedding(self, vit: nn.Module) -> None:
        """Let `prune` leave what the model's own embedding needs, and set `embedding_dim`.

        Raises:
            PoolingError: If the model has none.
        """
        raise PoolingError(
            f"pool='model': {type(vit).__name__} has no embedding of its own here; use pool='avg'"
        )

    def embedding(self, vit: nn.Module, images: Tensor, pos_interp: str) -> Tensor:
        """The model's own embeddings (B, C) of images as `tokens` takes them."""
        (tokens,) = self.tokens(vit, images, [self.depth(vit) - 1], pos_interp)
        return self.own_pooled(vit, tokens if self.norm(vit) is None else self.normed(vit, tokens))

    def own_pooled(self, vit: nn.Module, tokens: Tokens) -> Tensor:
        """That embedding of the tokens after the final norm; by default the CLS token."""
        return cls(tokens)

    def drop_cls_token(self, vit: nn.Module) -> None:
        """Remove the CLS token, if any, and its position; other prefix tokens stay.

        Raises:
            ValueError: If the model cannot run without.
        """
        if self.has_cls_token(vit):
            raise ValueError(needs_cls_token(vit))

    def position_name(self, vit: nn.Module) -> str | None:
        """State-dict key of a learned position table for any grid, `None` where there is none."""
        return None

    def keeps_grid(self, vit: nn.Module) -> bool:
        """Whether tables of the model are for one `grid`, which files have to record."""
        return self.position_name(vit) is not None

    def grid(self, vit: nn.Module) -> Grid:
        """(h, w) of such tables."""
        raise NotImplementedError

    def num_position_prefix(self, vit: nn.Module) -> int:
        """Rows of that table that belong to prefix tokens."""
        return 0

    def interpolation(self, vit: nn.Module, pos_interp: str) -> Mapping[str, object]:
        """Keyword arguments of `resample_positions` for `'timm'` or `'original'`."""
        return {}

    def table(self, vit: nn.Module, grid: Grid, pos_interp: str) -> Tensor:
        """That table at another grid, (1, prefix + h*w, C)."""
        return resample_positions(
            vit.get_parameter(self.position_name(vit)),
            self.grid(vit),
            grid,
            num_prefix=self.num_position_prefix(vit),
            **self.interpolation(vit, pos_interp),
        )

    def patch_embed_name(self) -> str | None:
        """State-dict key of the patch embedding's weight (C, in_channels, ph, pw)."""
        return None

    def translate(
        self, vit: nn.Module, tensors: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], str | None]:
        """A checkpoint in the keys of another project under those of the model, where known.

        Returns:
            The tensors without their prefix and the name of their layout; all tensors as they are
            and `None` where nothing had to be done.

        Raises:
            ValueError: If the file holds what the model cannot do.
        """
        return tensors, None

    def convert(self, vit: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """A checkpoint's tensors under the keys and in the shapes of the model, where known.

        The (h, w) that a file records is among them under `GRID_KEY`.
        """
        return tensors


def needs_cls_token(vit: nn.Module) -> str:
    """Why `with_cls_token=False` is refused."""
    return (
        f'with_cls_token=False: {type(vit).__name__} cannot run without its CLS token; '
        f"out_type='featmap' leaves it out of the maps"
    )
