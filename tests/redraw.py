"""Small ViTs with weights that show every mistake, and the comparison with timm."""

from functools import partial

import timm
import torch
import torch.nn.functional as F
from _comparison import difference as error

from vit_backbones import ViTFeatBackbone
from vit_backbones.models.random_weights import redraw
from vit_backbones.sources import SOURCES

__all__ = ['TINY', 'backbone', 'copy_weights', 'error', 'images', 'pad', 'redraw', 'timm_layers']

TINY = 'vit_tiny_patch16_224'


def timm_vit(name=TINY, *, depth=4, width=None, **options):
    """A stock timm model of reduced depth and width, redrawn."""
    if width:
        options |= dict(embed_dim=width, num_heads=3)
    options = dict(num_classes=0, dynamic_img_size=True, depth=depth) | options
    return redraw(timm.create_model(name, **options)).eval()


def backbone(name=TINY, *, depth=4, width=None, timm_options=(), **options):
    """A ViTFeatBackbone over a timm model of reduced depth and width, redrawn."""
    reduced = dict(timm_options, depth=depth)
    if width:
        reduced |= dict(embed_dim=width, num_heads=3)
    build = partial(SOURCES[options.pop('source', 'timm')], more=reduced)
    built = ViTFeatBackbone(name, source=build, **options)
    if options.get('checkpoint') is None:
        redraw(built)
    return built.eval()


def copy_weights(vit, weights):
    """Load what a pruned model has from the state dict of an unpruned one."""
    vit.load_state_dict({name: weights[name] for name in vit.state_dict()})


def images(*size, channels=3, batch=1):
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(1))


def pad(x, ph, pw=None):
    return F.pad(x, (0, -x.shape[-1] % (pw or ph), 0, -x.shape[-2] % ph))


def timm_layers(vit, x, indices, norm=False):
    """All tokens after each block, prefix first, of an image padded to the patch."""
    outputs = vit.forward_intermediates(
        pad(x, *vit.patch_embed.patch_size),
        indices=indices,
        return_prefix_tokens=vit.num_prefix_tokens > 0,
        norm=norm,
        output_fmt='NLC',
        intermediates_only=True,
    )
    return [torch.cat([o[1], o[0]], dim=1) if isinstance(o, tuple) else o for o in outputs]
