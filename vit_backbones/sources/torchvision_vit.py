"""torchvision's `VisionTransformer`: vit_b_16, vit_b_32, vit_l_16, vit_l_32, vit_h_14.

Source: https://github.com/pytorch/vision (BSD-3-Clause).
"""

import contextlib
import difflib
import re
import socket
from collections.abc import Iterator

import torch
import torchvision
from timm.layers import resample_patch_embed
from timm.models import adapt_input_conv
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from vit_backbones.position import Grid, cells
from vit_backbones.sources.base import Source, layer_in, two
from vit_backbones.sources.build_options import BuildOptions, Model
from vit_backbones.sources.plain import PlainSource, Start
from vit_backbones.sources.published import no_weights

# All published weights expect these
_MEAN, _STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
_OLD_MLP = re.compile(r'(?<=\.mlp\.)linear_[12](?=\.)')
_MLP = {'linear_1': '0', 'linear_2': '3'}
_SECONDS = 10.0  # a download gives up after so much silence


def build_torchvision(model_name: str, options: BuildOptions) -> tuple[Source, nn.Module]:
    """Build by torchvision's name, e.g. `'vit_b_16'`, for images of any size."""
    names = torchvision.models.list_models(include='vit_*')
    if model_name not in names:
        close = difflib.get_close_matches(str(model_name), names, n=3, cutoff=0)
        raise ValueError(
            f'unknown model_name {model_name!r} for source torchvision; closest: {", ".join(close)}'
        )
    if options.drop_path_rate:
        raise ValueError(
            f'drop_path_rate={options.drop_path_rate}: the ViTs of torchvision have no stochastic '
            f"depth; use 0, or source='timm'"
        )
    try:
        with _patience():
            weights = 'DEFAULT' if options.pretrained else None
            vit = torchvision.models.get_model(model_name, weights=weights)
    except OSError as error:  # urllib's errors among them
        raise no_weights(model_name, error) from None
    source, _ = wrap_torchvision(vit)
    patch = options.patch_size or (vit.patch_size, vit.patch_size)
    _rebuild_patches(vit, patch, options.in_channels)
    size = options.img_size or source.native_size(vit)
    source.set_input_size(vit, size, options.pos_interp)
    return source, vit


def wrap_torchvision(vit: nn.Module) -> 'tuple[TorchvisionViT, nn.Module] | None':
    """The adapter of an existing ViT of torchvision and that model; `None` for other models."""
    if not isinstance(vit, VisionTransformer):
        return None
    if not hasattr(vit, 'grid_size'):  # it has one if it comes from a backbone
        side = vit.image_size // vit.patch_size
        vit.grid_size, vit.grad_checkpointing = (side, side), False
    return TorchvisionViT(), vit


def list_torchvision() -> Iterator[Model]:
    """torchvision's ViTs."""
    for name in torchvision.models.list_models(include='vit_*'):
        meta = torchvision.models.get_model_weights(name).DEFAULT.meta
        yield Model(name, 'torchvision', tuple(meta['min_size']), meta.get('license'))


class TorchvisionViT(PlainSource):
    """Adapter of torchvision's ViT; the grid of its positions is kept as `grid_size` on it."""

    def start(self, vit: nn.Module, images: Tensor, pos_interp: str) -> Start:
        patches = vit.conv_proj(images)  # (B, C, h, w)
        grid = tuple(patches.shape[-2:])
        x = patches.flatten(2).transpose(1, 2)
        if self.has_cls_token(vit):
            x = torch.cat([vit.class_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = vit.encoder.dropout(x + self.table(vit, grid, pos_interp))
        return Start(x, grid, [{}] * self.depth(vit))

    def blocks(self, vit: nn.Module) -> nn.Sequential:
        return vit.encoder.layers

    def depth(self, vit: nn.Module) -> int:
        return len(vit.encoder.layers)

    def embed_dims(self, vit: nn.Module) -> list[int]:
        return [vit.hidden_dim] * self.depth(vit)

    def strides(self, vit: nn.Module) -> list[Grid]:
        return [two(vit.patch_size)] * self.depth(vit)

    def layer_of(self, name: str, depth: int) -> int:
        return layer_in('encoder.layers', name, depth, behind=('encoder.ln', 'heads'))

    def prune(self, vit: nn.Module, indices: list[int], *, keep_norm: bool) -> None:
        vit.heads = nn.Identity()
        vit.encoder.layers = vit.encoder.layers[: max(indices) + 1]
        if not keep_norm:
            vit.encoder.ln = nn.Identity()

    def native_size(self, vit: nn.Module) -> Grid:
        return vit.image_size, vit.image_size

    def preprocess(self, vit: nn.Module) -> dict[str, object]:
        return {'mean': list(_MEAN), 'std': list(_STD), 'bgr_to_rgb': True}

    def set_checkpointing(self, vit: nn.Module) -> None:
        vit.grad_checkpointing = True

    def set_input_size(self, vit: nn.Module, size: Grid, pos_interp: str) -> None:
        grid = cells(size, self.strides(vit)[0])
        vit.encoder.pos_embedding.data = self.table(vit, grid, pos_interp).detach()
        vit.grid_size = grid

    def num_prefix_tokens(self, vit: nn.Module) -> int:
        return int(self.has_cls_token(vit))

    def has_cls_token(self, vit: nn.Module) -> bool:
        return vit.class_token is not None

    def norm(self, vit: nn.Module) -> nn.Module | None:
        return None if isinstance(vit.encoder.ln, nn.Identity) else vit.encoder.ln

    def keep_embedding(self, vit: nn.Module) -> None:
        """The CLS token, which torchvision classifies."""
        if not self.has_cls_token(vit):
            super().keep_embedding(vit)
        self.embedding_dim = vit.hidden_dim

    def drop_cls_token(self, vit: nn.Module) -> None:
        table = vit.encoder.pos_embedding
        vit.encoder.pos_embedding = nn.Parameter(table.detach()[:, 1:].clone(), table.requires_grad)
        vit.class_token = None

    def position_name(self, vit: nn.Module) -> str | None:
        return 'encoder.pos_embedding'

    def grid(self, vit: nn.Module) -> Grid:
        return vit.grid_size

    def num_position_prefix(self, vit: nn.Module) -> int:
        return self.num_prefix_tokens(vit)

    def interpolation(self, vit: nn.Module, pos_interp: str) -> dict[str, object]:
        """`'original'` as torchvision's `interpolate_embeddings`."""
        if pos_interp == 'timm':
            return {'antialias': True}
        return {'antialias': False, 'align_corners': True}

    def patch_embed_name(self) -> str | None:
        return 'conv_proj.weight'

    def convert(self, vit: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Without classifiers; the published files name MLPs as before torchvision 0.13."""
        return {
            _OLD_MLP.sub(lambda found: _MLP[found[0]], name): tensor
            for name, tensor in tensors.items()
            if not name.startswith('heads.')
        }


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Give up where a network never answers; torch.hub would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _rebuild_patches(vit: VisionTransformer, patch_size: Grid, in_channels: int) -> None:
    """Resample the patch embedding where its patch or channels differ from the model's."""
    old = vit.conv_proj
    if (tuple(old.kernel_size), old.in_channels) == (tuple(patch_size), in_channels):
        return
    new = nn.Conv2d(in_channels, old.out_channels, patch_size, patch_size)
    weight = adapt_input_conv(in_channels, old.weight.detach())
    new.weight.data.copy_(resample_patch_embed(weight, list(patch_size)))
    new.bias.data.copy_(old.bias.detach())
    vit.conv_proj = new
    vit.patch_size = patch_size[0] if patch_size[0] == patch_size[1] else patch_size
