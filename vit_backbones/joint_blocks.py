"""A head's queries in the last blocks of a backbone."""

from typing import NamedTuple

from mmengine.logging import print_log
from torch import Tensor

from vit_backbones.arguments import integer
from vit_backbones.learning import LearningModel
from vit_backbones.position import Grid
from vit_backbones.readout import JointTokens, Readout
from vit_backbones.sources.base import INSTEAD
from vit_backbones.sources.plain import Before


class Queries(NamedTuple):
    """What `joint` runs beside the image's tokens; its arguments of that name."""

    extra: Tensor
    num_blocks: int
    before: Before | None = None


class JointBlocks(LearningModel):
    """A model whose last blocks may run queries beside its own tokens, for EoMT."""

    readout: Readout
    out_indices: list[int]
    _joint_blocks: int = 0  # that are ready for queries

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
                no final norm, or options that ask for outputs.
        """
        integer('num_blocks', num_blocks, 1, self.depth, f', blocks of {self.model_name!r}')
        self._check_outputs()
        self.source.prepare_joint(self.vit, num_blocks)
        self._check_norm()
        self._joint_blocks = num_blocks
        if self.frozen_stages > self.depth - num_blocks and self._alpha is None:
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
        before: Before | None = None,
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

        Raises:
            ValueError: If the blocks were not prepared.
        """
        return self(images, Queries(extra, num_blocks, before))  # compiled, where the model is

    def _with_queries(self, images: Tensor, queries: Queries) -> JointTokens:
        if queries.num_blocks > self._joint_blocks:
            raise ValueError(
                f'num_blocks={queries.num_blocks}, and {self._joint_blocks} blocks are ready for '
                f'queries: call prepare_joint({queries.num_blocks}) first, which stops drop path'
            )
        padded = self._padded(images)
        options = dict(learns=self.learns, before=queries.before)
        return self.source.joint(self.vit, padded, *queries[:2], self.pos_interp, **options)

    def _check_outputs(self) -> None:
        """Refuse options of outputs, of which queries have none, and blocks that were pruned."""
        last, plain = (self.depth - 1,), Readout(norm=self.readout.norm)
        given = [('out_indices', tuple(self.out_indices), last, f'-1, block {last[0]}')]
        for name in ('out_type', 'pool', 'cls_readout', 'out_stride'):
            default = getattr(plain, name)
            given.append((name, getattr(self.readout, name), default, repr(default)))
        for name, value, needed, shown in given:
            if value != needed:
                raise ValueError(
                    f'{name}={value!r}: queries run through the last block and are read there: '
                    f'leave {name} at {shown}; {INSTEAD}'
                )

    def _check_norm(self) -> None:
        if self.source.norm(self.vit) is None:
            reason = 'has no final norm of its own'
            if self.readout.norm == 'none':
                reason = f"has none with norm={self.readout.norm!r}: leave norm at 'last'"
            raise ValueError(
                f'queries and masks are read after the final norm, and {self.model_name!r} '
                f'{reason}; {INSTEAD}'
            )
