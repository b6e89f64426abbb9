"""Lightly's ViTs: embeddings equal to Lightly's own, its files, and models left as they are."""

import sys
from unittest import mock

import pytest
import torch
import torchvision
from redraw import backbone, error, images, redraw, timm_vit
from torchvision.models import VisionTransformer

from vit_backbones import ViTFeatBackbone

modules = pytest.importorskip('lightly.models.modules')
SIZES = dict(patch_size=16, num_layers=2, num_heads=3, hidden_dim=48, mlp_dim=96)
# Other squares; Lightly takes no rectangles off its grid
SIDES = [224, 448, 112]


def mae():
    return redraw(modules.MAEBackbone(image_size=224, **SIZES)).eval()


def masked_torchvision(antialias=True):
    vit = VisionTransformer(image_size=224, **SIZES)
    masked = modules.MaskedVisionTransformerTorchvision(vit, antialias=antialias)
    return redraw(masked).eval()


def masked_timm(antialias=True):
    vit = timm_vit(depth=2, width=48)
    return redraw(modules.MaskedVisionTransformerTIMM(vit, antialias=antialias)).eval()


MODELS = [mae, masked_torchvision, masked_timm]


@pytest.mark.parametrize('side', SIDES)
@pytest.mark.parametrize('make', MODELS)
@torch.no_grad()
def test_tokens_equal_encode(make, side):
    model, x = make(), images(side, side, batch=2)
    vit = ViTFeatBackbone.from_module(model, out_type='raw', pos_interp='original').eval()
    assert error(vit(x)[0], model.encode(x)) <= 1


@pytest.mark.parametrize('make', [masked_torchvision, masked_timm])
@torch.no_grad()
def test_original_positions_are_filtered_where_the_model_filters(make):
    x = images(112, 112)
    plain = make(antialias=False)
    vit = ViTFeatBackbone.from_module(plain, out_type='raw', pos_interp='original').eval()
    assert error(vit(x)[0], plain.encode(x)) <= 1
    assert error(vit(x)[0], make().encode(x)) > 1000


@pytest.mark.parametrize('make', MODELS)
@torch.no_grad()
def test_cls_is_what_the_model_gives(make):
    model, x = make(), images(224, 224)
    (embedding,) = ViTFeatBackbone.from_module(model, out_type='cls').eval()(x)
    assert error(embedding, model(x)) <= 1


@pytest.mark.parametrize('side', SIDES)
@pytest.mark.parametrize('make', MODELS)
@torch.no_grad()
def test_own_embedding_is_what_the_model_gives(make, side):
    model, x = make(), images(side, side, batch=2)
    vit = ViTFeatBackbone.from_module(model, pool='model', pos_interp='original').eval()
    assert error(vit(x)[0], model(x)) <= 1


@torch.no_grad()
def test_embeddings_of_an_mae_of_the_width_of_vit_b_32():
    """768 wide in patches of 32, as Lightly's example of MAE; one block."""
    sizes = dict(patch_size=32, num_layers=1, num_heads=12, hidden_dim=768, mlp_dim=768)
    model, x = redraw(modules.MAEBackbone(image_size=224, **sizes)).eval(), images(224, 224)
    (embedding,) = ViTFeatBackbone.from_module(model, pool='cls').eval()(x)
    assert embedding.shape == (1, 768)
    assert error(embedding, model(x)) <= 1


@pytest.mark.parametrize('make', MODELS)
@torch.no_grad()
def test_maps_of_a_rectangle(make):
    vit = ViTFeatBackbone.from_module(make(), out_indices=(0, 1)).eval()
    assert [maps.shape for maps in vit(images(50, 90))] == [(1, 48, 4, 6)] * 2


@pytest.mark.parametrize('make', MODELS)
def test_from_module_shares_the_weights_and_leaves_the_model_as_it_was(make):
    model, x = make(), images(224, 224)
    before, learning = model(x), [p.requires_grad for p in model.parameters()]
    vit = ViTFeatBackbone.from_module(model, with_cls_token=False, out_indices=0, frozen_stages=1)
    assert torch.equal(model(x), before)
    assert [p.requires_grad for p in model.parameters()] == learning
    shared = {p.data_ptr() for p in model.parameters()}
    own = {name for name, p in vit.vit.named_parameters() if p.data_ptr() not in shared}
    assert all(name.endswith(('pos_embed', 'pos_embedding')) for name in own)  # without its CLS row


@pytest.mark.parametrize('make', MODELS)
def test_every_parameter_gets_a_gradient(make):
    vit = ViTFeatBackbone.from_module(make()).train()
    vit(images(64, 96))[0].square().mean().backward()
    learning = {name: p for name, p in vit.named_parameters() if p.requires_grad}
    assert [name for name, p in learning.items() if p.grad is None] == []


# By name


@pytest.mark.parametrize('make', [mae, masked_torchvision])
@torch.no_grad()
def test_a_file_of_lightlys_loads_into_torchvisions_name(make, tmp_path):
    model, x = make(), images(224, 224)
    torch.save(model.state_dict(), tmp_path / 'lightly.pth')
    smaller = VisionTransformer(image_size=224, **SIZES)
    options = dict(source='lightly', checkpoint=tmp_path / 'lightly.pth', out_type='cls')
    with mock.patch.object(torchvision.models, 'get_model', return_value=smaller):
        vit = ViTFeatBackbone('vit_b_16', **options).eval()
    assert error(vit(x)[0], model(x)) <= 1


@torch.no_grad()
def test_a_file_of_lightlys_loads_into_timms_name(tmp_path):
    model, x = masked_timm(), images(112, 112)
    torch.save(model.state_dict(), tmp_path / 'lightly.pth')
    vit = backbone(
        depth=2,
        width=48,
        source='lightly',
        checkpoint=tmp_path / 'lightly.pth',
        out_type='raw',
        pos_interp='original',
    )
    assert error(vit(x)[0], model.encode(x)) <= 1


@pytest.mark.parametrize(
    ('name', 'close'),
    [('vit_tinny_patch16_224', 'vit_tiny_patch16_224'), ('vit_b16', 'vit_b_16'), (16, 'vit_b_16')],
)
def test_unknown_names_are_refused_with_close_ones_of_both_libraries(name, close):
    message = f'^unknown model_name {name!r} for source lightly, which takes.*closest: .*{close}'
    with pytest.raises(ValueError, match=message) as caught:
        ViTFeatBackbone(name, source='lightly')
    assert '\n' not in str(caught.value)


def test_blocks_of_lightlys_own_are_refused():
    model = modules.MaskedVisionTransformerTIMM(
        modules.MaskedCausalVisionTransformer(embed_dim=48, depth=1, num_heads=3)
    )
    with pytest.raises(ValueError, match=r'no source knows .*MaskedVisionTransformerTIMM'):
        ViTFeatBackbone.from_module(model)


def test_models_of_others_are_wrapped_without_lightly(monkeypatch):
    monkeypatch.setitem(sys.modules, 'lightly', None)
    monkeypatch.delitem(sys.modules, 'lightly.models.modules')
    assert ViTFeatBackbone.from_module(timm_vit(depth=1)).out_channels == (192,)
    assert ViTFeatBackbone('test_vit', source='lightly').out_channels == (64,)
