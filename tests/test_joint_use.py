"""`joint` in use: what it refuses, frozen and recomputed blocks, compiled and exported models."""

from functools import partial

import pytest
import torch
from redraw import backbone

from vit_backbones import ViTFeatBackbone
from vit_backbones.sources import SOURCES

QUERIES, JOINT = 6, 2
SMALL = dict(depth=4, width=48)
INSTEAD = 'PlainMaskHead (SegPlainMaskHead in mmseg) takes the maps of any backbone'
HF = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2)


def ready(*args, num_blocks=JOINT, **options):
    vit = backbone(*args, **{**SMALL, **options})
    vit.prepare_joint(num_blocks)
    return vit


def queries(vit):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(QUERIES, vit.embed_dims, generator=generator)


def half(index, joint):
    """Every second patch."""
    batch, patches = joint.tokens.patches.shape[:2]
    mask = torch.arange(patches, device=joint.extra.device) % 2 == index % 2
    return mask.expand(batch, joint.extra.shape[1], -1)


def refusal(vit, num_blocks=JOINT):
    with pytest.raises(ValueError, match='.') as caught:
        vit.prepare_joint(num_blocks)
    return str(caught.value)


def of_transformers(model_type, **options):
    pytest.importorskip('transformers')
    config = {**HF, 'model_type': model_type, 'patch_size': 16, **options}
    return ViTFeatBackbone(config, source='transformers')


# Refusals


def block_by_block(kind):
    return f'{kind} does not run here block by block, as plain ViTs do, {NO_QUERIES}'


NO_QUERIES = f'so that no queries run in its blocks: {INSTEAD}'
RELATIVE = f'has relative positions, which queries lack, {NO_QUERIES}'
SWIN = dict(embed_dim=16, depths=[1, 1], num_heads=[2, 4], patch_size=4, window_size=7)
TIMM_SWIN = dict(embed_dim=24, depths=(1, 1), num_heads=(1, 1))


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (
            lambda: ViTFeatBackbone(
                'swin_tiny_patch4_window7_224', source=partial(SOURCES['timm'], more=TIMM_SWIN)
            ),
            block_by_block('SwinTransformer'),
        ),
        (lambda: ViTFeatBackbone('hiera_tiny_224'), block_by_block('Hiera')),
        (
            lambda: backbone('beit_base_patch16_224', depth=2, width=48),
            block_by_block('Beit'),
        ),
        (
            lambda: backbone('samvit_base_patch16', depth=2, width=48),
            block_by_block('VisionTransformerSAM'),
        ),
        (
            lambda: backbone('vit_small_patch16_18x2_224', depth=2, width=48),
            f'ParallelThingsBlock has no attention layer that can run queries: {INSTEAD}',
        ),
        (
            lambda: ViTFeatBackbone(dict(SWIN, model_type='swin'), source='transformers'),
            f'SwinModel has stages with windows, {NO_QUERIES}',
        ),
        (
            lambda: of_transformers('beit', intermediate_size=64, image_size=64),
            f'BeitModel {RELATIVE}',
        ),
        (
            lambda: of_transformers('vitdet', pretrain_image_size=64, window_size=2),
            f'VitDetModel {RELATIVE}',
        ),
        (
            lambda: of_transformers('clip_vision_model', intermediate_size=64, image_size=64),
            'queries and masks are read after the final norm, and CLIPVisionModel has no final '
            f'norm of its own; {INSTEAD}',
        ),
        (
            lambda: backbone('eva02_tiny_patch14_224', depth=2),
            "queries and masks are read after the final norm, and 'eva02_tiny_patch14_224' has no "
            f'final norm of its own; {INSTEAD}',
        ),
    ],
)
def test_models_that_run_no_queries_are_refused_by_name(make, message):
    assert refusal(make(), 1) == message
