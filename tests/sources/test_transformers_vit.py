"""Vision encoders of transformers: features equal to the library's own, and what is pruned."""

import copy

import pytest
import torch
from encoders import CONFIGS, backbone, config_of, layers, library_model, outputs
from redraw import error, images, pad

from vit_backbones import ViTFeatBackbone
from vit_backbones.sources.transformers_families import FAMILIES

SIZES = [(224, 224), (250, 333), (480, 640), (1024, 128)]
FLAT = [name for name in CONFIGS if name != 'swin']


def padded(ours, x):
    return pad(x, *ours.layer_strides[-1])


@pytest.mark.parametrize('size', SIZES, ids=str)
@pytest.mark.parametrize('name', CONFIGS)
@torch.no_grad()
def test_features_equal_the_librarys(name, size):
    vit, x = library_model(name), images(*size)
    ours = ViTFeatBackbone.from_module(vit, out_indices=(0, 1), out_type='raw').eval()
    first, _, last = layers(vit, padded(ours, x))
    assert max(error(out, ref) for out, ref in zip(ours(x), (first, last), strict=True)) <= 1


@pytest.mark.parametrize('name', CONFIGS)
@torch.no_grad()
def test_without_norm_the_last_hidden_states_equal_the_librarys(name):
    vit, x = library_model(name), images(96, 64)
    if name == 'swin':
        x = images(224, 160)
    ours = ViTFeatBackbone.from_module(vit, out_type='raw', norm='none').eval()
    assert error(ours(x)[0], layers(vit, padded(ours, x))[1]) <= 1


@torch.no_grad()
def test_a_copy_is_another_model_that_gives_the_same():
    ours, x = backbone('vit'), images(40, 64)
    other = copy.deepcopy(ours)
    assert torch.equal(other(x)[0], ours(x)[0])
    other.set_input_size((32, 48))
    assert ours.source.grid(ours.vit) == (14, 14)


@pytest.mark.parametrize('name', CONFIGS)
def test_prefix_tokens_are_counted(name):
    ours = backbone(name)
    assert (ours.num_prefix_tokens, ours.has_cls_token) == (CONFIGS[name][0], CONFIGS[name][0] > 0)


@pytest.mark.parametrize('name', FLAT)
def test_maps_of_a_plain_encoder_have_the_stride_of_the_patch(name):
    ours, patch = backbone(name), CONFIGS[name][1]['patch_size']
    assert (ours.strides, ours.out_channels) == ((patch,), (32,))


@torch.no_grad()
def test_stages_of_swin_have_strides_and_channels_of_their_own():
    ours = backbone('swin', out_indices=(0, 1))
    assert (ours.strides, ours.out_channels) == ((4, 8), (16, 32))
    assert [f.shape[1:] for f in ours(images(250, 333))] == [(16, 64, 84), (32, 32, 42)]


@pytest.mark.parametrize('index', [0, 1])
@pytest.mark.parametrize('name', CONFIGS)
def test_every_trainable_parameter_gets_a_gradient(name, index):
    ours = backbone(name, out_indices=index).train()
    ours(images(64, 96))[0].sum().backward()
    without = [n for n, p in ours.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


@pytest.mark.parametrize('name', CONFIGS)
def test_what_no_output_needs_is_pruned(name):
    names = ' '.join(backbone(name, out_indices=0).vit.state_dict())
    second = f'{FAMILIES[config_of(name)["model_type"]].layers}.1.'
    assert [
        part for part in (second, 'pooler', 'head', 'mask_token', 'downsample') if part in names
    ] == []


@pytest.mark.parametrize('size', [(224, 224), (250, 333)], ids=str)
@pytest.mark.parametrize('name', [name for name in CONFIGS if name != 'vitdet'])
@torch.no_grad()
def test_own_embedding_equals_the_librarys_pooler_output(name, size):
    vit, x = library_model(name), images(*size)
    ours = ViTFeatBackbone.from_module(vit, pool='model').eval()
    (embedding,) = ours(x)
    expected = outputs(vit, padded(ours, x)).pooler_output
    assert error(embedding, expected) <= 1
    assert ours.out_channels == (expected.shape[1],)


def test_a_file_without_pooling_has_no_own_embedding(tmp_path):
    vit = library_model('vit')
    vit.pooler = None
    vit.save_pretrained(tmp_path)
    options = dict(source='transformers', pretrained=True)
    assert ViTFeatBackbone(tmp_path, **options, pool='cls').out_channels == (32,)
    with pytest.raises(ValueError, match="pool='model': ViTModel has no embedding of its own"):
        ViTFeatBackbone(tmp_path, **options, pool='model')


def test_encoders_that_only_make_maps_have_no_own_embedding():
    with pytest.raises(ValueError, match="pool='model': VitDetModel has no embedding of its own"):
        backbone('vitdet', pool='model')


@pytest.mark.parametrize('name', CONFIGS)
def test_frozen_stages_are_the_embeddings_and_the_first_layers(name):
    ours = backbone(name, frozen_stages=1)
    first, second = (f'{FAMILIES[ours.vit.config.model_type].layers}.{i}.' for i in (0, 1))
    trainable = {n for n, p in ours.vit.named_parameters() if p.requires_grad}
    last = {
        n for n, _ in ours.vit.named_parameters() if n.startswith((second, 'norm', 'layernorm'))
    }
    last |= {n for n, _ in ours.vit.named_parameters() if n.startswith('post_layernorm')}
    assert trainable == last
    assert any(n.startswith(first) for n, _ in ours.vit.named_parameters())


@pytest.mark.parametrize('name', CONFIGS)
def test_checkpointing_leaves_the_gradients_as_they_are(name):
    vit, gradients = library_model(name), []
    for with_cp in (False, True):
        ours = ViTFeatBackbone.from_module(vit, with_cp=with_cp).eval()
        ours(images(64, 96))[0].square().sum().backward()
        gradients.append([p.grad for p in ours.parameters() if p.requires_grad])
    assert all(torch.allclose(*pair) for pair in zip(*gradients, strict=True))


def test_checkpointing_keeps_fewer_activations():
    saved = []
    for with_cp in (False, True):
        ours, count = backbone('vit', with_cp=with_cp), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, c=count: c.append(t), lambda t: t):
            ours(images(64, 96))
        saved.append(len(count))
    assert saved[1] < saved[0] / 2


@torch.no_grad()
def test_swin_does_not_shift_windows_that_are_as_large_as_the_map():
    vit, x = library_model('swin'), images(56, 56)
    ours = ViTFeatBackbone.from_module(vit, out_type='raw').eval()
    assert error(ours(x)[0], layers(vit, x)[-1]) <= 1


@torch.no_grad()
def test_swin_shifts_again_after_a_small_image():
    vit, small, x = library_model('swin'), images(56, 56), images(96, 112)
    expected = layers(vit, x)[-1]
    vit(small)  # the library shifts no more
    ours = ViTFeatBackbone.from_module(vit, out_type='raw').eval()
    ours(small)
    assert error(ours(x)[0], expected) <= 1


@torch.no_grad()
def test_swin_takes_images_smaller_than_a_window():
    ours = backbone('swin', out_indices=(0, 1))
    assert [f.shape[-2:] for f in ours(images(16, 20))] == [(4, 6), (2, 3)]


def test_swin_refuses_its_final_norm_on_other_stages():
    with pytest.raises(ValueError, match=r"norm='all': the final norm of SwinModel fits its last"):
        backbone('swin', out_indices=(0, 1), norm='all')


def test_from_module_leaves_the_model_as_it_was():
    vit = library_model('dinov2')
    before = set(vit.state_dict())
    ViTFeatBackbone.from_module(vit, out_indices=0, frozen_stages=0)
    assert set(vit.state_dict()) == before
    assert all(p.requires_grad for p in vit.parameters())
