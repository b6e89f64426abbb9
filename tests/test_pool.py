"""`pool=`: embeddings of any output; the model's own pooling against timm's."""

import pytest
import torch
from redraw import backbone, copy_weights, error, images, pad, timm_vit

from vit_backbones import ViTFeatBackbone
from vit_backbones.tokens import POOLINGS, Tokens

SMALL = dict(depth=2, width=48)
WITH_ATTENTION = [
    'vit_base_patch16_siglip_224',  # no prefix tokens
    'vit_so150m_patch16_reg4_map_256',  # registers, which it leaves out
    'vit_pe_core_tiny_patch16_384',  # Eva, whose pooling sees the CLS token
]


@pytest.mark.parametrize('pool', POOLINGS)
@torch.no_grad()
def test_each_output_is_pooled_as_its_raw_tokens(pool):
    vit = backbone('vit_small_patch14_reg4_dinov2', **SMALL, out_indices=(0, 1), pool=pool)
    x = images(50, 90, batch=2)
    embeddings = vit(x)
    vit.pool, vit.out_type = None, 'raw'
    for embedding, raw in zip(embeddings, vit(x), strict=True):
        assert torch.equal(embedding, POOLINGS[pool](Tokens(raw[:, 5:], raw[:, :5], (4, 7))))


@pytest.mark.parametrize(('pool', 'channels'), [('cls', 48), ('gem', 48), ('cls+avg', 96)])
@torch.no_grad()
def test_out_channels_are_those_of_the_embeddings(pool, channels):
    vit = backbone(**SMALL, pool=pool)
    assert vit.out_channels == (channels,)
    assert vit(images(32, 48))[0].shape == (1, channels)


@pytest.mark.parametrize('name', WITH_ATTENTION)
@torch.no_grad()
def test_attention_pooling_equals_timms(name):
    reference = timm_vit(name, **SMALL)
    vit = backbone(name, **SMALL, pool='attn')
    copy_weights(vit.vit, reference.state_dict())
    x = images(96, 150, batch=2)
    expected = reference.forward_head(
        reference.forward_features(pad(x, *reference.patch_embed.patch_size)), pre_logits=True
    )
    assert error(vit(x)[0], expected) <= 1


def test_attention_pooling_learns():
    vit = backbone(WITH_ATTENTION[0], **SMALL, pool='attn').train()
    vit(images(32, 48))[0].square().mean().backward()
    assert [name for name, p in vit.named_parameters() if p.grad is None] == []
    assert any('attn_pool' in name for name, _ in vit.named_parameters())


def test_attention_pooling_is_loaded_from_a_file(tmp_path):
    state = timm_vit(WITH_ATTENTION[0], **SMALL).state_dict()
    torch.save(state, tmp_path / 'vit.pth')
    vit = backbone(WITH_ATTENTION[0], **SMALL, pool='attn', checkpoint=tmp_path / 'vit.pth')
    assert torch.equal(vit.vit.attn_pool.latent, state['attn_pool.latent'])


def test_attention_pooling_goes_where_it_is_not_asked_for():
    assert backbone(WITH_ATTENTION[0], **SMALL, pool='avg').vit.attn_pool is None


@pytest.mark.parametrize(
    ('name', 'pool', 'message'),
    [
        ('vit_tiny_patch16_224', 'attn', "pool='attn': VisionTransformer has no attention pooling"),
        ('vit_base_patch16_siglip_224', 'cls', "pool='cls' needs a CLS token, .*use pool='avg'"),
        ('vit_base_patch16_siglip_224', 'cls+avg', r"pool='cls\+avg' needs a CLS token"),
        ('vit_tiny_patch16_224', 'mean', "pool must be one of 'cls', 'avg', .*'attn', got 'mean'"),
    ],
)
def test_what_cannot_be_pooled_is_refused(name, pool, message):
    with pytest.raises(ValueError, match=message) as caught:
        backbone(name, **SMALL, pool=pool)
    assert '\n' not in str(caught.value)


def test_other_architectures_have_no_attention_pooling():
    with pytest.raises(ValueError, match="pool='attn': PoolingVisionTransformer has no attention"):
        ViTFeatBackbone('pit_ti_224', pool='attn')


@pytest.mark.parametrize(
    'other', [dict(out_type='raw'), dict(cls_readout='add'), dict(out_stride=8)], ids=str
)
def test_options_that_pooling_leaves_without_effect_are_refused(other):
    with pytest.raises(ValueError, match=r"pool='avg' gives embeddings in place of out_type"):
        ViTFeatBackbone('vit_tiny_patch16_224', pool='avg', **other)


def test_out_type_of_pooled_outputs_is_not_settable():
    vit = ViTFeatBackbone('vit_tiny_patch16_224', pool='avg')
    with pytest.raises(ValueError, match="out_type='cls' with pool='avg'"):
        vit.out_type = 'cls'
