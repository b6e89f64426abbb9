"""The same plain ViT as other libraries build it, for comparison."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple

import timm
from timm.layers import Mlp
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from vit_backbones.backbone import ViTFeatBackbone
from vit_backbones.config.explain import describe
from vit_backbones.position import Grid

_OTHER = 'has no such architecture'


class Plain(NamedTuple):
    """Sizes of the blocks that run in a plain ViT with a CLS token.

    Attributes:
        depth: Blocks up to the last one whose output is wanted.
        hidden: Channels within an MLP.
        patch: Side of a patch.
        scaled: Whether it has LayerScale, as DINOv2 does.
    """

    depth: int
    width: int
    heads: int
    hidden: int
    patch: int
    scaled: bool
    out_indices: tuple[int, ...]

    @property
    def mlp_ratio(self) -> int:
        """Hidden channels to channels, for libraries that take it; it must be a whole number."""
        if self.hidden % self.width:
            raise ValueError(f'takes no MLP of {self.hidden} channels in {self.width}')
        return self.hidden // self.width


def plain_sizes(backbone: ViTFeatBackbone, *, scaled: bool = True) -> Plain:
    """The sizes by which another library, with LayerScale if `scaled`, builds a backbone.

    Raises:
        ValueError: If the architecture is not that of ViT, DeiT, MAE or DINOv2 in timm.
    """
    if not _is_plain(backbone):
        raise ValueError(_OTHER)
    vit, block = backbone.vit, backbone.vit.blocks[0]
    if not scaled and not isinstance(block.ls1, nn.Identity):
        raise ValueError('has no LayerScale')
    patch = vit.patch_embed.patch_size
    if patch[0] != patch[1]:
        raise ValueError('has no oblong patches')
    return Plain(
        depth=max(backbone.out_indices) + 1,
        width=vit.embed_dim,
        heads=block.attn.num_heads,
        hidden=block.mlp.fc1.out_features,
        patch=patch[0],
        scaled=not isinstance(block.ls1, nn.Identity),
        out_indices=backbone.out_indices,
    )


def _is_plain(backbone: ViTFeatBackbone) -> bool:
    vit = backbone.vit
    block = vit.blocks[0] if isinstance(vit, VisionTransformer) else None
    return (
        type(block) is Block
        and type(block.mlp) is Mlp
        and backbone.has_cls_token
        and backbone.num_prefix_tokens == 1
        and isinstance(block.attn.q_norm, nn.Identity)
        and isinstance(vit.norm_pre, nn.Identity)  # of CLIP
        and vit.pos_embed is not None
    )


def build_peer(name: str, backbone: ViTFeatBackbone, size: Grid) -> nn.Module:
    """Build the architecture of a backbone as another library does, with random weights.

    It is only as deep as the backbone's last output needs. It gives the wanted blocks' outputs as
    maps, or the nearest to them: tokens in transformers, the last CLS token in torchvision.

    Args:
        name: Key of `PEERS`.
        size: (H, W) of the images that the peer is built for.

    Raises:
        ValueError: If there is none; the reason reads as a sentence after the library's name.
    """
    try:
        import_module(f'{name}.models')
    except ModuleNotFoundError as error:
        missing = 'is not installed' if error.name == name else f'needs {error.name}'
        raise ValueError(missing) from error
    except Exception as error:  # its own dependencies do not fit
        raise ValueError(f'cannot be imported ({describe(error)})') from error
    try:
        return PEERS[name](backbone, size)
    except (AssertionError, RuntimeError, TypeError) as error:  # the library's own, for this size
        raise ValueError(f'refuses {size[0]}x{size[1]} ({describe(error)})') from error


def _timm(backbone: ViTFeatBackbone, size: Grid) -> nn.Module:
    if not timm.is_model(backbone.model_name):
        raise ValueError(_OTHER)
    wanted = dict(features_only=True, out_indices=backbone.out_indices)
    fixed = dict(img_size=size) if hasattr(backbone.vit, 'patch_embed') else {}  # not of CNNs
    return timm.create_model(backbone.model_name, **wanted, **fixed)


def _mmseg(backbone: ViTFeatBackbone, size: Grid) -> nn.Module:
    from mmseg.models import VisionTransformer as Peer

    plain = plain_sizes(backbone, scaled=False)
    return Peer(
        img_size=size,
        patch_size=plain.patch,
        embed_dims=plain.width,
        num_layers=plain.depth,
        num_heads=plain.heads,
        mlp_ratio=plain.mlp_ratio,
        out_indices=plain.out_indices,
        patch_bias=True,
        final_norm=True,
    )


def _mmpretrain(backbone: ViTFeatBackbone, size: Grid) -> nn.Module:
    from mmpretrain.models import VisionTransformer as Peer

    plain = plain_sizes(backbone)
    arch = dict(
        embed_dims=plain.width,
        num_layers=plain.depth,
        num_heads=plain.heads,
        feedforward_channels=plain.hidden,
    )
    return Peer(
        arch,
        img_size=size,
        patch_size=plain.patch,
        out_indices=list(plain.out_indices),
        out_type='featmap',
        layer_scale_init_value=1.0 if plain.scaled else 0.0,
    )


class _HiddenStates(nn.Module):
    """A model of transformers that gives the tokens of some blocks, (B, 1 + h*w, C) each."""

    def __init__(self, model: nn.Module, indices: Sequence[int]) -> None:
        super().__init__()
        self.model, self._indices = model, indices

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run images (B, 3, H, W)."""
        states = self.model(images, output_hidden_states=True).hidden_states
        return tuple(states[index + 1] for index in self._indices)  # the first: the embeddings


def _transformers(backbone: ViTFeatBackbone, size: Grid) -> nn.Module:
    from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel

    plain = plain_sizes(backbone)
    sizes = dict(
        hidden_size=plain.width,
        num_hidden_layers=plain.depth,
        num_attention_heads=plain.heads,
        patch_size=plain.patch,
    )
    if plain.scaled:  # its table of positions is square
        more = dict(image_size=max(size), mlp_ratio=plain.mlp_ratio)
        model = Dinov2Model(Dinov2Config(use_mask_token=False, **more, **sizes))
    else:
        config = ViTConfig(image_size=size, intermediate_size=plain.hidden, **sizes)
        model = ViTModel(config, add_pooling_layer=False)
    return _HiddenStates(model, plain.out_indices)


def _torchvision(backbone: ViTFeatBackbone, size: Grid) -> nn.Module:
    from torchvision.models import VisionTransformer as Peer

    plain = plain_sizes(backbone, scaled=False)
    if size[0] != size[1]:
        raise ValueError('takes only squares')
    peer = Peer(size[0], plain.patch, plain.depth, plain.heads, plain.width, plain.hidden)
    peer.heads = nn.Identity()
    return peer


PEERS: dict[str, Callable[[ViTFeatBackbone, Grid], nn.Module]] = {
    'timm': _timm,
    'mmseg': _mmseg,
    'mmpretrain': _mmpretrain,
    'transformers': _transformers,
    'torchvision': _torchvision,
}
