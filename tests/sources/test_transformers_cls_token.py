"""Encoders of transformers without their CLS token: features, weights and checkpoints."""

import pytest
import torch
from encoders import CONFIGS, backbone, layers, library_model
from redraw import error, images, pad

from vit_backbones import ViTFeatBackbone

# Those with a CLS token that run without, and their other prefix tokens
NAMES = {
    'vit': 0,
    'deit': 1,
    'dinov2': 0,
    'dinov2_with_registers': 4,
    'dinov3_vit': 4,
    'clip_vision_model': 0,
}
POSITIONS = [name for name in NAMES if name != 'dinov3_vit']


def layers_without_cls(vit, x):
    """The library's own hidden states, its first token cut off in front of the layers."""
    hook = vit.embeddings.register_forward_hook(lambda module, given, x: x[:, 1:])
    states = layers(vit, x)
    hook.remove()
    return states


@pytest.mark.parametrize('size', [(224, 224), (250, 333), (480, 96)], ids=str)
@pytest.mark.parametrize('name', NAMES)
@torch.no_grad()
def test_features_equal_the_librarys_without_the_token(name, size):
    vit, x = library_model(name), images(*size)
    options = dict(out_indices=(0, 1), out_type='raw', with_cls_token=False)
    ours = ViTFeatBackbone.from_module(vit, **options).eval()
    first, _, last = layers_without_cls(vit, pad(x, CONFIGS[name][1]['patch_size']))
    assert max(error(out, ref) for out, ref in zip(ours(x), (first, last), strict=True)) <= 1
    assert (ours.num_prefix_tokens, ours.has_cls_token) == (NAMES[name], False)


@pytest.mark.parametrize('name', NAMES)
@torch.no_grad()
def test_the_model_given_keeps_its_token_and_positions(name):
    vit, x = library_model(name), images(224, 224)
    before, shapes = layers(vit, x)[-1], {n: t.shape for n, t in vit.state_dict().items()}
    ViTFeatBackbone.from_module(vit, with_cls_token=False)
    assert torch.equal(layers(vit, x)[-1], before)
    assert {n: t.shape for n, t in vit.state_dict().items()} == shapes


@pytest.mark.parametrize('name', NAMES)
def test_nothing_of_the_token_is_left_to_save_or_train(name):
    whole, ours = backbone(name), backbone(name, with_cls_token=False).train()
    gone = set(whole.vit.state_dict()) - set(ours.vit.state_dict())
    assert gone == {
        'embeddings.class_embedding' if name.startswith('clip') else 'embeddings.cls_token'
    }
    ours(images(64, 96))[0].sum().backward()
    assert [n for n, p in ours.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize('image_size', [224, 448])
@pytest.mark.parametrize('name', NAMES)
@torch.no_grad()
def test_a_file_with_the_token_loads_without_it(name, image_size, tmp_path):
    vit, x = library_model(name, image_size=image_size), images(250, 333)
    torch.save(vit.state_dict(), tmp_path / 'vit.pth')
    options = dict(with_cls_token=False, out_type='raw', img_size=image_size)
    ours = backbone(name, checkpoint=tmp_path / 'vit.pth', **options)
    expected = layers_without_cls(vit, pad(x, CONFIGS[name][1]['patch_size']))[-1]
    assert error(ours(x)[0], expected) <= 1
    assert ours.load_report.startswith(f'loaded {len(ours.vit.state_dict())} of')


@pytest.mark.parametrize('name', POSITIONS)
def test_positions_of_another_image_size_are_fitted_without_the_tokens_row(name, tmp_path):
    vit = library_model(name, image_size=448)
    torch.save(vit.state_dict(), tmp_path / 'vit.pth')
    ours = backbone(name, checkpoint=tmp_path / 'vit.pth', with_cls_token=False)
    theirs = ViTFeatBackbone.from_module(vit)
    table = theirs.source.table(theirs.vit, ours.source.grid(ours.vit), 'timm')
    key = ours.source.position_name(ours.vit)
    torch.testing.assert_close(ours.vit.state_dict()[key].flatten(0, -2), table[0, 1:])


@pytest.mark.parametrize('name', ['deit', 'clip_vision_model', 'dinov3_vit'])
@torch.no_grad()
def test_a_saved_backbone_loads_into_one_for_another_size(name):
    options, x = dict(with_cls_token=False, out_type='raw'), images(250, 333)
    saved = ViTFeatBackbone.from_module(library_model(name), **options).eval()
    loaded = backbone(name, img_size=(96, 160), **options)
    loaded.load_state_dict(saved.state_dict())
    sized = ViTFeatBackbone.from_module(library_model(name), **options).eval()
    sized.set_input_size((96, 160))
    assert error(loaded(x)[0], sized(x)[0]) <= 1


@torch.no_grad()
def test_a_backbone_without_the_token_can_be_wrapped_again():
    ours, x = backbone('vit', with_cls_token=False, out_type='raw'), images(64, 96)
    again = ViTFeatBackbone.from_module(ours.vit, out_type='raw').eval()
    assert torch.equal(again(x)[0], ours(x)[0])


@pytest.mark.parametrize('name', ['deit', 'clip_vision_model', 'dinov2_with_registers'])
@torch.no_grad()
def test_pretrained_weights_go_without_the_token_to_another_image_size(name, tmp_path):
    vit, x = library_model(name), images(250, 333)
    vit.save_pretrained(tmp_path / 'vit')
    options = dict(source='transformers', pretrained=True, with_cls_token=False, out_type='raw')
    ours = ViTFeatBackbone(tmp_path / 'vit', img_size=(250, 333), **options).eval()
    expected = layers_without_cls(vit, pad(x, CONFIGS[name][1]['patch_size']))[-1]
    assert error(ours(x)[0], expected) <= 1
