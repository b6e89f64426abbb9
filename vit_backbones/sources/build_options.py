"""What every model library is asked to build, and how it lists its models."""

from collections.abc import Sequence
from typing import NamedTuple

from vit_backbones.arguments import LARGEST, choice, integer, pair, rate
from vit_backbones.position import Grid

POSITION_INTERPOLATIONS = ('timm', 'original')


class BuildOptions(NamedTuple):
    """Options with which every source builds a model; `None` stands for the model's own.

    Attributes:
        img_size: (H, W) to build for.
        patch_size: (vertical, horizontal).
        drop_path_rate: Stochastic depth of the last block.
        pos_interp: `'timm'` or `'original'`.
    """

    pretrained: bool = False
    img_size: Grid | None = None
    patch_size: Grid | None = None
    in_channels: int | None = 3
    drop_path_rate: float = 0.0
    pos_interp: str = 'timm'

    @classmethod
    def of(
        cls,
        pretrained: bool | None,
        img_size: int | Sequence[int] | None,
        patch_size: int | Sequence[int] | None,
        in_channels: int | None,
        drop_path_rate: float,
        pos_interp: str,
    ) -> 'BuildOptions':
        """Check the arguments of `ViTFeatBackbone`."""
        return cls(
            pretrained=bool(pretrained),
            img_size=pair('img_size', img_size),
            patch_size=pair('patch_size', patch_size),
            in_channels=None
            if in_channels is None
            else integer('in_channels', in_channels, 1, LARGEST),
            drop_path_rate=rate('drop_path_rate', drop_path_rate),
            pos_interp=choice('pos_interp', pos_interp, POSITION_INTERPOLATIONS),
        )


class Model(NamedTuple):
    """A model as its library lists it, with (H, W) of the images and licence of its weights."""

    name: str
    source: str
    size: Grid | None = None
    licence: str | None = None
