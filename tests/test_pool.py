"""`pool=`: embeddings of any output; the model's own pooling against timm's."""

from functools import partial

import pytest
import torch
from redraw import backbone, copy_weights, error, images, pad, redraw, timm_vit

from vit_backbones import ViTFeatBackbone
from vit_backbones.readout import POOLINGS, PoolingError, Tokens
from vit_backbones.sources import SOURCES
from vit_backbones.sources.build_options import BuildOptions

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


@pytest.mark.parametrize('pool', ['attn', 'model'])
def test_a_file_that_lacks_much_of_the_pooling_is_told(pool, tmp_path):
    small = dict(depth=1, width=48)
    torch.save(backbone(WITH_ATTENTION[0], **small).vit.state_dict(), tmp_path / 'vit.pth')
    with pytest.raises(PoolingError, match='attn_pool'):
        backbone(WITH_ATTENTION[0], **small, pool=pool, checkpoint=tmp_path / 'vit.pth')


def test_attention_pooling_goes_where_it_is_not_asked_for():
    assert backbone(WITH_ATTENTION[0], **SMALL, pool='avg').vit.attn_pool is None


@pytest.mark.parametrize(
    ('name', 'pool', 'message'),
    [
        ('vit_tiny_patch16_224', 'attn', "pool='attn': VisionTransformer has no attention pooling"),
        ('vit_base_patch16_siglip_224', 'cls', "pool='cls' needs a CLS token, .*use pool='avg'"),
        ('vit_base_patch16_siglip_224', 'cls+avg', r"pool='cls\+avg' needs a CLS token"),
        ('vit_tiny_patch16_224', 'mean', "pool must be one of 'cls', 'avg', .*'model', got 'mean'"),
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


# The model's own embedding

OWN = {
    'CLS': ('vit_tiny_patch16_224', {}),
    'mean, normed': ('vit_tiny_patch16_224', dict(global_pool='avg', fc_norm=True)),
    'mean of what is normed': ('vit_tiny_patch16_224', dict(global_pool='avg', fc_norm=False)),
    'mean and maximum': ('vit_tiny_patch16_224', dict(global_pool='avgmax')),
    'mean beside registers': ('vit_base_patch16_rope_reg1_gap_256', {}),
    'attention': ('vit_base_patch16_siglip_224', {}),
    'attention that sees the CLS token': ('vit_pe_core_tiny_patch16_384', {}),
    'CLS and distillation token': ('deit_tiny_distilled_patch16_224', {}),
    'EVA': ('eva02_tiny_patch14_224', {}),
}


@pytest.mark.parametrize('size', [(64, 96), (50, 90)], ids=str)
@pytest.mark.parametrize('case', OWN)
@torch.no_grad()
def test_own_embedding_equals_timms(case, size):
    name, options = OWN[case]
    reference = timm_vit(name, **SMALL, **options)
    vit = backbone(name, **SMALL, timm_options=options, pool='model')
    copy_weights(vit.vit, reference.state_dict())
    x = images(*size, batch=2)
    expected = reference.forward_head(
        reference.forward_features(pad(x, *reference.patch_embed.patch_size)), pre_logits=True
    )
    assert error(vit(x)[0], expected) <= 1
    assert vit.out_channels == (expected.shape[1],)


STAGED = {
    'swin_tiny_patch4_window7_224': dict(depths=(1, 1, 1, 1)),
    'cait_xxs24_224': dict(depth=2),  # its CLS token joins behind the blocks
    'beit_base_patch16_224': dict(depth=2, embed_dim=48, num_heads=3),
}


@pytest.mark.parametrize('name', STAGED)
@torch.no_grad()
def test_own_embedding_of_other_architectures_equals_timms(name):
    build, size = partial(SOURCES['timm'], more=STAGED[name]), (96, 160)
    _, reference = build(name, BuildOptions(img_size=size))
    vit = ViTFeatBackbone(name, source=build, img_size=size, pool='model').eval()
    vit.vit.load_state_dict(redraw(reference.eval()).state_dict())
    x = images(*size)
    expected = reference.forward_head(reference.forward_features(x), pre_logits=True)
    assert error(vit(x)[0], expected) <= 1


@torch.no_grad()
def test_own_embedding_of_a_model_with_a_classifier():
    reference = timm_vit(**SMALL, num_classes=7)
    x = images(32, 48)
    expected = reference.forward_head(reference.forward_features(x), pre_logits=True)
    vit = ViTFeatBackbone.from_module(reference, pool='model').eval()
    assert error(vit(x)[0], expected) <= 1
    assert not [name for name, _ in vit.named_parameters() if 'head' in name]


def test_own_embedding_learns():
    name, options = OWN['mean, normed']
    vit = backbone(name, **SMALL, timm_options=options, pool='model').train()
    vit(images(32, 48))[0].square().mean().backward()
    assert [name for name, p in vit.named_parameters() if p.grad is None] == []
    assert any('fc_norm' in name for name, _ in vit.named_parameters())


def test_a_file_without_the_head_is_refused(tmp_path):
    state = timm_vit(WITH_ATTENTION[0], **SMALL).state_dict()
    kept = {name: value for name, value in state.items() if name != 'attn_pool.latent'}
    torch.save(kept, tmp_path / 'vit.pth')
    with pytest.raises(PoolingError, match=r"pool='model': checkpoint .* attn_pool.latent is miss"):
        backbone(WITH_ATTENTION[0], **SMALL, pool='model', checkpoint=tmp_path / 'vit.pth')


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('vit_tiny_patch16_224', dict(out_indices=0), r'last block, 1, .*out_indices=\(0,\)'),
        ('vit_tiny_patch16_224', dict(norm='none'), "normed, .*norm='none'"),
        ('vit_tiny_patch16_224', dict(mask_padding=True), 'mask_padding=True'),
        ('vit_tiny_patch16_224', dict(with_cls_token=False), 'no embedding of its own'),
        ('deit_tiny_distilled_patch16_224', dict(with_cls_token=False), 'no embedding of its own'),
        ('vit_tiny_patch16_224', dict(timm_options=dict(global_pool='')), 'no embedding of its o'),
    ],
    ids=str,
)
def test_what_has_no_own_embedding_is_refused(name, options, message):
    with pytest.raises(PoolingError, match=message) as caught:
        backbone(name, **SMALL, pool='model', **options)
    assert '\n' not in str(caught.value)
