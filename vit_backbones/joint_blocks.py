"""A head's queries in the last blocks of a backbone."""

from collections.abc import Callable

from mmengine.logging import print_log
from torch import Tensor

from vit_backbones.adapted import AdaptedModel
from vit_backbones.arguments import integer
from vit_backbones.position import Grid
from vit_backbones.readout import JointTokens, Readout
from vit_backbones.sources.base import INSTEAD


class JointBlocks(AdaptedModel):
    """A model whose last blocks may run queries beside its own tokens, for EoMT."""

    readout: Readout
    out_indices: list[int]
    pos_interp: str

    @property
    def embed_dims(self) -> int:
        """Channels of the tokens after the last block."""
        return self.layer_channels[-1]

    @property
    def patch_size(self) -> Grid:
        """(vertical, horizontal) stride of the tokens after the last block, in pixels."""
        return self.layer_strides[-1]

    def prepare_joint(self, num_blocks: int) -> None:
        """Get ready for `joint`: the last blocks have no drop path from now on.

        Args:
            num_blocks: Blocks that run queries, 1 to depth.

        Raises:
            ValueError: The last blocks cannot: no plain ViT, windows or relative positions in them,
                blocks pruned, or no final norm.
        """
        integer('num_blocks', num_blocks, 1, self.depth, f', blocks of {self.model_name!r}')
        last = self.depth - 1
        if last not in self.out_indices:
            raise ValueError(
                f'out_indices={tuple(self.out_indices)}: queries run through the last block, '
                f'{last}: leave out_indices at -1; {INSTEAD}'
            )
        self.source.prepare_joint(self.vit, num_blocks)
        if self.source.norm(self.vit) is None:
            raise ValueError(
                f'queries and masks are read after the final norm, and {self.model_name!r} has '
                f"none with norm={self.readout.norm!r}: norm='last' keeps that of models that have "
                f'one; {INSTEAD}'
            )
        if self.frozen_stages > self.depth - num_blocks:
            print_log(
                f'frozen_stages={self.frozen_stages} of {self.depth} blocks: the last {num_blocks} '
                f'run queries, and those that are frozen do not learn to',
                logger='current',
            )

    def joint(
        self,
        images: Tensor,
        extra: Tensor,
        num_blocks: int,
        before: Callable[[int, JointTokens], Tensor | None] | None = None,
    ) -> JointTokens:
        """Run the ViT, its last blocks with more tokens in front; `prepare_joint` comes first.

        Args:
            images: (B, in_channels, H, W) of any size, normalised with `preprocess`.
            extra: Tokens (Q, C), the same for each image. They have no positions.
            num_blocks: Blocks that run them, the last ones.
            before: Called before each of these blocks, with its index from 0 and the tokens after
                the final norm. Gives (B, Q, h*w), whether an extra token attends to a patch, or
                `None` for all.

        Returns:
            All tokens after the last block and the final norm; h = ceil(H / patch).
        """
        padded = self._padded(images)
        return self.source.joint(
            self.vit,
            padded,
            extra,
            num_blocks,
            self.pos_interp,
            learns=self.learns,
            before=before,
        )
