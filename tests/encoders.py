"""Small vision encoders of transformers, redrawn, and their own hidden states."""

import pytest
import torch
from redraw import redraw

from vit_backbones import ViTFeatBackbone
from vit_backbones.sources.transformers_families import FAMILIES

transformers = pytest.importorskip('transformers')

_SMALL = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=224)
_WIDE = dict(_SMALL, intermediate_size=64)
# Prefix tokens, and what the config is told, by model type and variant
CONFIGS = {
    'vit': (1, dict(_WIDE, patch_size=16)),
    'deit': (2, dict(_WIDE, patch_size=16)),
    'dinov2': (1, dict(_SMALL, patch_size=14, mlp_ratio=2)),
    'dinov2_swiglu': (1, dict(_SMALL, patch_size=14, mlp_ratio=2, use_swiglu_ffn=True)),
    'dinov2_with_registers': (5, dict(_SMALL, patch_size=14, mlp_ratio=2)),
    'dinov3_vit': (5, dict(_WIDE, patch_size=16, num_register_tokens=4)),
    'siglip_vision_model': (0, dict(_WIDE, patch_size=16)),
    'siglip2_vision_model': (
        0,
        dict({k: v for k, v in _WIDE.items() if k != 'image_size'}, patch_size=16, num_patches=196),
    ),
    'clip_vision_model': (1, dict(_WIDE, patch_size=32)),
    'beit': (1, dict(_WIDE, patch_size=16, use_relative_position_bias=True)),
    'beit_shared': (
        1,
        dict(
            _WIDE,
            patch_size=16,
            use_shared_relative_position_bias=True,
            use_absolute_position_embeddings=True,
            use_mean_pooling=False,
        ),
    ),
    'vitdet': (
        0,
        dict(
            _SMALL,
            patch_size=16,
            pretrain_image_size=160,
            mlp_ratio=2,
            window_size=5,
            window_block_indices=[0],
            residual_block_indices=[1],
            use_relative_position_embeddings=True,
        ),
    ),
    'swin': (0, dict(embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=7)),
}


def config_of(name):
    model_type = name.removesuffix('_swiglu').removesuffix('_shared')
    return dict(CONFIGS[name][1], model_type=model_type)


def library_model(name, **options):
    """The library's own encoder, redrawn."""
    config = transformers.AutoConfig.for_model(**(config_of(name) | options))
    return shown(getattr(transformers, FAMILIES[config.model_type].model)(config))


def shown(vit):
    """A model of the library, redrawn so that every part shows."""
    vit = redraw(vit).eval()
    for weight_name, weight in vit.named_parameters():
        if 'position_embedding' in weight_name:  # redrawn too small to be seen
            weight.data = 20 * weight.data
    return vit


def backbone(name, **options):
    return ViTFeatBackbone(config_of(name), source='transformers', **options).eval()


def layers(vit, x):
    """The library's hidden states after each layer, prefix tokens first, and its last one."""
    out = outputs(vit, x)
    states = out.hidden_states
    if vit.config.model_type == 'swin':
        states = [state.flatten(2).transpose(1, 2) for state in out.reshaped_hidden_states]
    if vit.config.model_type == 'vitdet':  # of maps
        states = [state.flatten(2).transpose(1, 2) for state in states]
        return [*states[1:], states[-1]]
    return [*states[1:], out.last_hidden_state]


def outputs(vit, x):
    """All that the library's encoder gives for images."""
    options = dict(output_hidden_states=True)
    if vit.config.model_type == 'siglip2_vision_model':
        return _outputs_of_patches(vit, x, options)
    if FAMILIES[vit.config.model_type].sized:
        options['interpolate_pos_encoding'] = True
    if vit.config.model_type == 'swin':
        options['output_hidden_states_before_downsampling'] = True
    return vit(x, **options)


def _outputs_of_patches(vit, x, options):
    """Those of a library's model that is given patches, cut by the library's own function."""
    side = vit.config.patch_size
    cut = transformers.models.siglip2.image_processing_siglip2.convert_image_to_patches
    patches = torch.stack([cut(image, side) for image in x])
    shapes = torch.tensor([[size // side for size in x.shape[2:]]] * len(x))
    return vit(patches, torch.ones(patches.shape[:2], dtype=torch.long), shapes, **options)


def equal_weights(ours, vit):
    """Whether every tensor of a backbone is that of the library's encoder."""
    theirs = vit.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in ours.vit.state_dict().items())
