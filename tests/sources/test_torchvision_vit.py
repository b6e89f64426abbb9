"""torchvision's ViTs: features equal to torchvision's own, its files, and what is refused."""

from unittest import mock
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
import torchvision
from redraw import error, images, pad, redraw
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torchvision.models import VisionTransformer
from torchvision.models.vision_transformer import ConvStemConfig, interpolate_embeddings

from vit_backbones import ViTFeatBackbone

SIZES = [(64, 96), (250, 333), (320, 224)]


def tiny(patch=16, size=224, **options):
    """torchvision's own model with two blocks, always of the same weights."""
    sizes = dict(num_layers=2, num_heads=3, hidden_dim=48, mlp_dim=96, num_classes=5)
    return redraw(VisionTransformer(size, patch, **sizes, **options)).eval()


def backbone(name='vit_b_16', **options):
    """A ViTFeatBackbone over such a model, built by name."""
    with mock.patch.object(
        torchvision.models, 'get_model', lambda name, weights: tiny(int(name[-2:]))
    ):
        return ViTFeatBackbone(name, source='torchvision', **options).eval()


def seen(vit, part, x):
    """What torchvision's forward hands to (`heads`) or gets from a part of the model."""
    found = []
    hook = vit.get_submodule(part).register_forward_hook(
        lambda module, given, out: found.append(given[0] if part == 'heads' else out)
    )
    vit(x)
    hook.remove()
    return found[0]


def by_hand(vit, x, table):
    """torchvision's modules in the order of its forward pass, on an image that it would refuse."""
    patches = vit.conv_proj(pad(x, *vit.conv_proj.kernel_size)).flatten(2).mT
    tokens = torch.cat([vit.class_token.expand(len(x), -1, -1), patches], dim=1)
    return vit.encoder.ln(vit.encoder.layers(tokens + table))


def original_table(vit, grid):
    """`interpolate_embeddings` for a rectangle."""
    side = vit.image_size // vit.patch_size
    cls, patches = vit.encoder.pos_embedding.split([1, side * side], dim=1)
    maps = patches.mT.reshape(1, -1, side, side)
    maps = F.interpolate(maps, size=grid, mode='bicubic', align_corners=True)
    return torch.cat([cls, maps.flatten(2).mT], dim=1)


def cells(size, patch=16):
    return tuple(-(-side // patch) for side in size)


@pytest.mark.parametrize(('name', 'num_tokens'), [('vit_b_16', 197), ('vit_b_32', 50)])
@torch.no_grad()
def test_raw_tokens_equal_torchvisions_at_its_size(name, num_tokens):
    vit, x = backbone(name, out_indices=(0, 1), out_type='raw'), images(224, 224, batch=2)
    reference = tiny(int(name[-2:]))
    first, last = vit(x)
    assert first.shape == last.shape == (2, num_tokens, 48)
    assert error(first, seen(reference, 'encoder.layers.encoder_layer_0', x)) <= 1
    assert error(last, seen(reference, 'encoder', x)) <= 1


@torch.no_grad()
def test_without_norm_the_last_tokens_are_those_before_ln():
    vit, x = backbone(norm='none', out_type='raw'), images(224, 224)
    assert error(vit(x)[0], seen(tiny(), 'encoder.layers', x)) <= 1


@torch.no_grad()
def test_cls_is_what_torchvisions_classifier_is_fed():
    x = images(224, 224, batch=2)
    (cls,) = backbone(out_type='cls')(x)
    assert cls.shape == (2, 48)
    assert error(cls, seen(tiny(), 'heads', x)) <= 1


@torch.no_grad()
def test_own_embedding_is_what_torchvisions_classifier_is_fed():
    x = images(224, 224, batch=2)
    (embedding,) = backbone(pool='model')(x)
    assert error(embedding, seen(tiny(), 'heads', x)) <= 1
    (rectangle,) = backbone(pool='model')(images(50, 90))
    assert torch.equal(rectangle, backbone(pool='cls')(images(50, 90))[0])


def test_without_cls_token_there_is_no_own_embedding():
    with pytest.raises(ValueError, match="pool='model': VisionTransformer has no embedding"):
        backbone(pool='model', with_cls_token=False)


@torch.no_grad()
def test_comparison_with_torchvision_sees_a_swap_of_queries_and_keys():
    vit, x = backbone(out_type='raw'), images(224, 224)
    weight = vit.vit.encoder.layers[0].self_attention.in_proj_weight.data
    query, key, value = weight.clone().chunk(3)
    weight.copy_(torch.cat([key, query, value]))
    assert error(vit(x)[0], seen(tiny(), 'encoder', x)) > 1000


@pytest.mark.parametrize('side', [160, 320])
@torch.no_grad()
def test_original_positions_are_those_of_interpolate_embeddings(side):
    x = images(side, side)
    reference = tiny(size=side)
    reference.load_state_dict(interpolate_embeddings(side, 16, tiny().state_dict()))
    out = backbone(out_type='raw', pos_interp='original')(x)[0]
    assert error(out, seen(reference, 'encoder', x)) <= 1


@pytest.mark.parametrize('size', SIZES, ids=str)
@pytest.mark.parametrize('pos_interp', ['timm', 'original'])
@torch.no_grad()
def test_rectangles_and_odd_sizes_equal_torchvisions_modules(size, pos_interp):
    reference, x = tiny(), images(*size)
    table = original_table(reference, cells(size))
    if pos_interp == 'timm':
        table = resample_abs_pos_embed(reference.encoder.pos_embedding, cells(size), (14, 14))
    out = backbone(out_type='raw', pos_interp=pos_interp)(x)[0]
    assert error(out, by_hand(reference, x, table)) <= 1


@pytest.mark.parametrize('patch', [8, (16, 8)], ids=str)
@torch.no_grad()
def test_patch_size_resamples_the_weights(patch):
    ph, pw = (patch, patch) if isinstance(patch, int) else patch
    reference, x = tiny(), images(96, 168)
    new = torch.nn.Conv2d(3, 48, (ph, pw), (ph, pw))
    new.weight.data = resample_patch_embed(reference.conv_proj.weight, [ph, pw])
    new.bias = reference.conv_proj.bias
    reference.conv_proj = new
    table, native = reference.encoder.pos_embedding, (224 // ph, 224 // pw)
    table = resample_abs_pos_embed(table, native, (14, 14))
    table = resample_abs_pos_embed(table, (96 // ph, 168 // pw), native)
    vit = backbone(patch_size=patch, out_type='raw')
    assert error(vit(x)[0], by_hand(reference, x, table)) <= 1
    assert vit.strides == (patch,)


@pytest.mark.parametrize('channels', [1, 4])
def test_in_channels_adapts_rgb_weights(channels):
    rgb = tiny().conv_proj.weight
    expected = {1: rgb.sum(1, keepdim=True), 4: rgb[:, [0, 1, 2, 0]] * 3 / 4}[channels]
    vit = backbone(in_channels=channels)
    torch.testing.assert_close(vit.vit.conv_proj.weight, expected)
    assert vit(images(40, 50, channels=channels))[0].shape == (1, 48, 3, 4)


@torch.no_grad()
def test_without_cls_token_patches_attend_to_patches_alone():
    reference, x = tiny(), images(224, 224)
    patches = reference.conv_proj(x).flatten(2).mT + reference.encoder.pos_embedding[:, 1:]
    expected = reference.encoder.ln(reference.encoder.layers(patches))
    vit = backbone(with_cls_token=False, out_type='raw')
    assert (vit.has_cls_token, vit.num_prefix_tokens) == (False, 0)
    assert error(vit(x)[0], expected) <= 1


@pytest.mark.parametrize(
    ('stages', 'learning'),
    [
        (-1, {'class_token', 'conv_proj', 'pos_embedding', '0', '1', 'ln'}),
        (0, {'0', '1', 'ln'}),
        (1, {'1', 'ln'}),
        (2, set()),
    ],
)
def test_frozen_stages(stages, learning):
    vit = backbone(frozen_stages=stages).vit
    names = {name for name, parameter in vit.named_parameters() if parameter.requires_grad}
    parts = {
        name.removeprefix('encoder.').removeprefix('layers.encoder_layer_').split('.')[0]
        for name in names
    }
    assert parts == learning


def test_get_layer_depth():
    layers = {
        'conv_proj.weight': 0,
        'class_token': 0,
        'encoder.pos_embedding': 0,
        'encoder.layers.encoder_layer_1.ln_1.weight': 2,
        'encoder.ln.weight': 3,
    }
    vit = backbone()
    assert {name: vit.get_layer_depth(f'vit.{name}')[0] for name in layers} == layers


@pytest.mark.parametrize('out_indices', [0, 1, (0, 1)], ids=str)
@pytest.mark.parametrize('norm', ['last', 'all', 'none'])
def test_every_parameter_gets_a_gradient(out_indices, norm):
    vit = backbone(out_indices=out_indices, norm=norm).train()
    sum(out.square().mean() for out in vit(images(64, 96))).backward()
    assert [name for name, p in vit.named_parameters() if p.grad is None] == []


def test_with_cp_gives_equal_gradients(monkeypatch):
    calls = []
    inner = torch.utils.checkpoint.checkpoint
    target = 'torch.utils.checkpoint.checkpoint'
    monkeypatch.setattr(target, lambda *args, **kw: calls.append(kw) or inner(*args, **kw))
    gradients = []
    for with_cp in (False, True):
        vit = backbone(with_cp=with_cp).train()
        vit(images(64, 96))[0].square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in vit.named_parameters()})
    assert calls == [dict(use_reentrant=False)] * 2
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize('pos_interp', ['timm', 'original'])
@torch.no_grad()
def test_set_input_size_keeps_the_features(pos_interp):
    vit, x = backbone(pos_interp=pos_interp), images(250, 333)
    before = vit(x)[0]
    vit.set_input_size((250, 333))
    assert vit.vit.encoder.pos_embedding.shape == (1, 1 + 16 * 21, 48)
    assert vit.position_grid.tolist() == [16, 21]
    assert error(vit(x)[0], before) <= 1


# Files


def altered(state):
    """The same names and shapes, other values, so that only loading can make two models equal."""
    return {name: tensor + 1 for name, tensor in state.items()}


def old_names(state):
    """As the published files, which are older than torchvision 0.13."""
    old = {'mlp.0': 'mlp.linear_1', 'mlp.3': 'mlp.linear_2'}
    return {
        next((name.replace(new, old[new]) for new in old if new in name), name): tensor
        for name, tensor in state.items()
    }


@pytest.mark.parametrize('rename', [dict, old_names])
def test_a_file_of_torchvision_loads_whole(rename, tmp_path):
    state = altered(tiny().state_dict())
    torch.save(rename(state), tmp_path / 'vit.pth')
    vit = backbone(checkpoint=tmp_path / 'vit.pth').vit
    assert all(torch.equal(tensor, state[name]) for name, tensor in vit.state_dict().items())


def test_a_classifier_of_another_form_is_passed_over(tmp_path):
    torch.save(tiny(representation_size=7).state_dict(), tmp_path / 'vit.pth')
    assert backbone(checkpoint=tmp_path / 'vit.pth').out_channels == (48,)


def test_a_file_at_another_size_gets_its_positions_resampled(tmp_path):
    reference = tiny()
    torch.save(reference.state_dict(), tmp_path / 'vit.pth')
    vit = backbone(img_size=(320, 96), pos_interp='original', checkpoint=tmp_path / 'vit.pth')
    expected = original_table(reference, (20, 6))
    torch.testing.assert_close(vit.vit.encoder.pos_embedding, expected)


def test_a_saved_rectangle_comes_back(tmp_path):
    saved = backbone(img_size=(320, 96))
    torch.save(saved.state_dict(), tmp_path / 'vit.pth')
    again = backbone(img_size=(320, 96), checkpoint=tmp_path / 'vit.pth')
    torch.testing.assert_close(dict(again.state_dict()), dict(saved.state_dict()))


# What is refused


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('vit_b_61', {}, "unknown model_name 'vit_b_61' for source torchvision; closest: vit_b_16"),
        ('resnet50', {}, "unknown model_name 'resnet50'"),
        ('vit_b_16', dict(drop_path_rate=0.1), 'drop_path_rate=0.1: .* no stochastic depth'),
    ],
)
def test_what_torchvision_lacks_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        ViTFeatBackbone(name, source='torchvision', **options)
    assert '\n' not in str(caught.value)


def test_pretrained_without_network_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setattr(torch.hub, 'urlopen', mock.Mock(side_effect=URLError('no route')))
    with pytest.raises(RuntimeError, match=r"weights for 'vit_b_32': .*no route.*checkpoint=") as e:
        ViTFeatBackbone('vit_b_32', source='torchvision', pretrained=True)
    assert '\n' not in str(e.value)


# Models that exist already


@torch.no_grad()
def test_from_module_gives_the_models_features():
    given, x = tiny(), images(224, 224)
    vit = ViTFeatBackbone.from_module(given, out_type='cls').eval()
    assert error(vit(x)[0], seen(given, 'heads', x)) <= 1


@torch.no_grad()
def test_from_module_takes_a_stem_of_convolutions():
    given, x = tiny(conv_stem_configs=[ConvStemConfig(8, 3, 2)] * 4), images(224, 224)
    vit = ViTFeatBackbone.from_module(given, out_type='raw').eval()
    assert error(vit(x)[0], seen(given, 'encoder', x)) <= 1


def test_from_module_shares_the_weights():
    given = tiny()
    vit = ViTFeatBackbone.from_module(given)
    own = dict(given.named_parameters())
    assert all(p.data_ptr() == own[name].data_ptr() for name, p in vit.vit.named_parameters())


def test_from_module_leaves_the_model_as_it_was():
    given, x = tiny(), images(224, 224)
    given.class_token.requires_grad_(False)
    before, learning = given(x), [p.requires_grad for p in given.parameters()]
    vit = ViTFeatBackbone.from_module(given, out_indices=0, with_cls_token=False, frozen_stages=1)
    vit.set_input_size((64, 96))
    assert torch.equal(given(x), before)
    assert [p.requires_grad for p in given.parameters()] == learning
    assert given.heads.head.out_features == 5


def test_preprocess_is_imagenets():
    preprocess = backbone().preprocess
    assert preprocess['mean'] == [123.675, 116.28, 103.53]
    assert preprocess['std'] == [58.395, 57.12, 57.375]


@torch.no_grad()
def test_grid_of_a_backbones_own_model_stays_when_it_is_wrapped_again():
    once = ViTFeatBackbone('vit_b_16', source='torchvision', img_size=(112, 448), out_indices=0)
    again = ViTFeatBackbone.from_module(once.vit, out_indices=0)
    x = images(112, 448)
    assert error(again.eval()(x)[0], once.eval()(x)[0]) <= 1
