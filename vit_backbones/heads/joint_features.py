"""Images on their way into a backbone, which runs a head's queries with their tokens."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from vit_backbones.position import Grid
from vit_backbones.readout import JointTokens

INSTEAD = 'PlainMaskHead (SegPlainMaskHead in mmseg) takes the maps of any backbone'


class JointFeatures(NamedTuple):
    """What EoMT's models give their heads in place of maps.

    Attributes:
        backbone: A `ViTFeatBackbone`.
        images: (B, C, H, W).
    """

    backbone: nn.Module
    images: Tensor

    def __call__(
        self,
        queries: Tensor,
        num_blocks: int,
        before: Callable[[int, JointTokens], Tensor | None] | None,
    ) -> JointTokens:
        """Run the backbone, its last blocks with the queries (Q, C)."""
        return self.backbone.joint(self.images, queries, num_blocks, before)


class ThroughBackbone:
    """Mixin for a `JointHead` that gets `JointFeatures`."""

    def _run(self, x: JointFeatures, before: Any) -> JointTokens:
        return x(self.query_embed.weight, self.num_blocks, before)

    def _input_size(self, x: JointFeatures, *_: Any) -> Grid:
        return tuple(x.images.shape[-2:])


def refuse(model: str, **parts: Any) -> None:
    """Refuse parts that read maps, of which EoMT has none."""
    for name, config in parts.items():
        if config is not None:
            raise ValueError(
                f'{model} takes no {name}, got {name}={_type(config)}: its head gets queries that '
                f'went through the backbone, no maps; leave it out. {INSTEAD}'
            )


def fitted(head: Mapping[str, Any], backbone: nn.Module, model: str) -> dict[str, Any]:
    """The config of a head with the backbone's channels and patch size, unless it has its own.

    The backbone is prepared for the head's blocks.

    Raises:
        ValueError: If queries cannot go through the backbone's last blocks.
    """
    if not hasattr(backbone, 'joint'):
        raise ValueError(
            f'{model} needs backbone=ViTFeatBackbone, through whose last blocks its queries go, '
            f'got {type(backbone).__name__}; {INSTEAD}'
        )
    backbone.prepare_joint(head.get('num_blocks'))
    own = dict(feat_channels=backbone.embed_dims, patch_size=backbone.patch_size)
    return {**own, **head}


def _type(config: Any) -> str:
    several: Sequence[Any] = config if isinstance(config, Sequence) else [config]
    return ', '.join(str(each['type']) for each in several)
