"""What an adapter of a model library has to know."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from vit_backbones.position import Grid
from vit_backbones.tokens import Tokens


class Source(ABC):
    """Knows how one library builds its ViTs, names their parts and runs them.

    An adapter holds no weights: every method takes the library's module, so that wrappers (EMA
    copies, FSDP) may replace it and parameter names stay those of the library.
    """

    @abstractmethod
    def build(
        self,
        model_name: str,
        *,
        pretrained: bool,
        img_size: Grid | None,
        patch_size: Grid | None,
        in_channels: int,
        drop_path_rate: float,
        pos_interp: str,
    ) -> nn.Module:
        """Build the library's model without its classifier.

        Raises:
            ValueError: For an unknown name or a model that the adapter cannot run.
            RuntimeError: If pretrained weights were asked for and cannot be had.
        """

    @abstractmethod
    def tokens(
        self, vit: nn.Module, images: Tensor, indices: list[int], pos_interp: str
    ) -> list[Tokens]:
        """Un-normed tokens after the blocks `indices` (ascending, 0-based).

        Args:
            vit: The library's module.
            images: (B, C, H, W), H and W multiples of the patch.
            indices: Blocks wanted.
            pos_interp: `'timm'` or `'original'`.
        """

    @abstractmethod
    def depth(self, vit: nn.Module) -> int:
        """Number of blocks."""

    @abstractmethod
    def embed_dims(self, vit: nn.Module) -> list[int]:
        """Channels after each block."""

    @abstractmethod
    def patch_size(self, vit: nn.Module) -> Grid:
        """(height, width) of a patch in pixels."""

    @abstractmethod
    def grid(self, vit: nn.Module) -> Grid:
        """(h, w) of the position table."""

    @abstractmethod
    def num_prefix_tokens(self, vit: nn.Module) -> int:
        """CLS and register tokens in front of the patches."""

    @abstractmethod
    def has_cls_token(self, vit: nn.Module) -> bool:
        """Whether the first prefix token is a CLS token."""

    @abstractmethod
    def norm(self, vit: nn.Module) -> nn.Module | None:
        """The final norm, `None` where the model has none."""

    @abstractmethod
    def drop_cls_token(self, vit: nn.Module) -> None:
        """Remove the CLS token and its position; registers stay."""

    @abstractmethod
    def prune(self, vit: nn.Module, last_block: int, *, keep_norm: bool) -> None:
        """Remove the classifier, the blocks after `last_block` and, unless kept, the final norm."""

    @abstractmethod
    def layer_of(self, name: str, depth: int) -> int:
        """Layer of a parameter or module name: 0 embeddings, i + 1 block i, depth + 1 the rest."""

    @abstractmethod
    def position_name(self, vit: nn.Module) -> str | None:
        """State-dict key of the learned position table, `None` where there is none."""

    @abstractmethod
    def num_position_prefix(self, vit: nn.Module) -> int:
        """Rows of the position table that belong to prefix tokens."""

    @abstractmethod
    def interpolation(self, vit: nn.Module, pos_interp: str) -> dict[str, object]:
        """Keyword arguments of `resample_positions` for `'timm'` or `'original'`."""

    @abstractmethod
    def native_size(self, vit: nn.Module) -> Grid:
        """(H, W) of the images for which the published weights are made."""

    @abstractmethod
    def patch_embed_name(self) -> str:
        """State-dict key of the patch embedding's weight (C, in_channels, ph, pw)."""

    @abstractmethod
    def set_input_size(self, vit: nn.Module, size: Grid, pos_interp: str) -> None:
        """Resample the position table, for good, to the grid of a padded (H, W) image."""

    @abstractmethod
    def set_checkpointing(self, vit: nn.Module) -> None:
        """Recompute each block in the backward pass."""

    @abstractmethod
    def preprocess(self, vit: nn.Module) -> dict[str, object]:
        """`mean`, `std` (0-255, RGB order) and `bgr_to_rgb`, as data preprocessors take them."""
