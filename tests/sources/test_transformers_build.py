"""Building encoders of transformers: configs, folders, pretrained weights, refusals."""

import copy
import json
import sys

import pytest
import torch
from encoders import (
    CONFIGS,
    backbone,
    config_of,
    equal_weights,
    layers,
    library_model,
    transformers,
)
from huggingface_hub import constants
from redraw import error, images
from safetensors.torch import load_file, save_file
from timm.layers import resample_patch_embed

from vit_backbones import ViTFeatBackbone
from vit_backbones.sources import transformers_build as module


@pytest.fixture
def folder(tmp_path):
    """Saves an encoder as the library does, and tells where."""

    def save(vit):
        vit.save_pretrained(tmp_path / 'vit')
        return tmp_path / 'vit'

    return save


@pytest.mark.parametrize('name', CONFIGS)
def test_pretrained_folder_is_loaded(name, folder):
    vit = library_model(name)
    ours = ViTFeatBackbone(folder(vit), source='transformers', pretrained=True)
    assert equal_weights(ours, vit)


def test_pretrained_half_weights_become_single(folder):
    path = folder(library_model('vit').half())
    ours = ViTFeatBackbone(path, source='transformers', pretrained=True)
    assert {weight.dtype for weight in ours.parameters()} == {torch.float32}


def test_pretrained_weights_that_lack_a_part_are_refused(folder):
    path = folder(library_model('vit'))
    tensors = load_file(path / 'model.safetensors')
    tensors = {name: t for name, t in tensors.items() if 'layer.1.attention.output' not in name}
    save_file(tensors, path / 'model.safetensors', metadata={'format': 'pt'})
    with pytest.raises(RuntimeError, match=r'lack 2 tensors of ViTModel, among them layers\.1'):
        ViTFeatBackbone(path, source='transformers', pretrained=True)


def test_a_folder_whose_weights_are_not_asked_for_is_told(folder, monkeypatch):
    lines = []
    monkeypatch.setattr(module, 'print_log', lambda line, **options: lines.append(line))
    path = folder(library_model('vit'))
    ViTFeatBackbone(path, source='transformers', pretrained=True)
    assert lines == []
    ViTFeatBackbone(path, source='transformers')
    assert lines == [f'{path} holds weights, which are not loaded: pretrained=True loads them']


def test_a_truncated_folder_is_one_line_with_its_name(folder):
    path = folder(library_model('vit'))
    file = path / 'model.safetensors'
    file.write_bytes(file.read_bytes()[:5])
    with pytest.raises(RuntimeError, match=f'no pretrained weights for .*{path.name}'):
        ViTFeatBackbone(path, source='transformers', pretrained=True)


@pytest.mark.parametrize('name', ['vit', 'siglip_vision_model', 'dinov3_vit'])
@torch.no_grad()
def test_patch_size_and_channels_are_resampled_from_pretrained_weights(name, folder):
    vit, options = library_model(name), dict(source='transformers', pretrained=True)
    ours = ViTFeatBackbone(folder(vit), patch_size=8, in_channels=1, **options)
    key = ours.source.patch_embed_name()
    expected = resample_patch_embed(vit.state_dict()[key].sum(1, keepdim=True), [8, 8])
    torch.testing.assert_close(ours.vit.state_dict()[key], expected)
    assert ours(images(64, 40, channels=1))[0].shape == (1, 32, 8, 5)


def test_siglip2_keeps_the_patch_and_channels_of_its_pretrained_weights(folder):
    path = folder(library_model('siglip2_vision_model'))
    with pytest.raises(ValueError, match=r'^Siglip2VisionModel keeps the patch size and the chann'):
        ViTFeatBackbone(path, source='transformers', pretrained=True, in_channels=1)


def test_beit_keeps_the_patch_of_its_pretrained_weights(folder):
    path = folder(library_model('beit'))
    with pytest.raises(ValueError, match=r'BeitModel.*patch of 8.*relative positions'):
        ViTFeatBackbone(path, source='transformers', pretrained=True, patch_size=8)


@pytest.mark.parametrize(
    'name',
    [
        'vit',
        'siglip_vision_model',
        'siglip2_vision_model',
        'dinov2_with_registers',
        'deit',
        'vitdet',
    ],
)
@torch.no_grad()
def test_img_size_resamples_the_positions_for_good(name, folder):
    vit, x = library_model(name), images(250, 333)
    options = dict(source='transformers', pretrained=True, out_type='raw')
    anysize = ViTFeatBackbone(folder(vit), **options).eval()
    ours = ViTFeatBackbone(folder(vit), img_size=(250, 333), **options).eval()
    patch = CONFIGS[name][1]['patch_size']
    assert ours.position_grid.tolist() == [-(-250 // patch), -(-333 // patch)]
    assert error(ours(x)[0], anysize(x)[0]) <= 1


@pytest.mark.parametrize('name', ['vit', 'clip_vision_model'])
@torch.no_grad()
def test_checkpoint_of_another_image_size_is_fitted(name, tmp_path):
    vit = library_model(name, image_size=160)
    torch.save(vit.state_dict(), tmp_path / 'vit.pth')
    ours = backbone(name, checkpoint=tmp_path / 'vit.pth')
    expected = ViTFeatBackbone.from_module(vit)
    assert ours.source.grid(ours.vit) != expected.source.grid(expected.vit)
    table = expected.source.table(expected.vit, ours.source.grid(ours.vit), 'timm')
    key = ours.source.position_name(ours.vit)
    torch.testing.assert_close(ours.vit.state_dict()[key].flatten(0, -2), table[0])


@torch.no_grad()
def test_folder_with_a_config_alone_builds_the_same_architecture(folder):
    vit = library_model('dinov2')
    vit.config.save_pretrained(folder(vit).parent / 'config')
    ours = ViTFeatBackbone(str(folder(vit).parent / 'config'), source='transformers')
    assert {n: t.shape for n, t in vit.state_dict().items() if 'mask_token' not in n} == {
        n: t.shape for n, t in ours.vit.state_dict().items()
    }


def test_config_of_a_whole_clip_gives_its_vision_encoder():
    config = transformers.CLIPConfig(vision_config=config_of('clip_vision_model'))
    ours = ViTFeatBackbone(config, source='transformers')
    assert (type(ours.vit).__name__, ours.depth) == ('CLIPVisionModel', 2)


def test_config_of_the_caller_is_left_unchanged():
    config = transformers.ViTConfig(**CONFIGS['vit'][1])
    before = copy.deepcopy(config.to_dict())
    ViTFeatBackbone(config, source='transformers', patch_size=8, img_size=(64, 96))
    assert config.to_dict() == before


def test_model_type_stands_for_its_default_config():
    ours = ViTFeatBackbone('dinov3_vit', source='transformers')
    assert (ours.depth, ours.out_channels, ours.strides) == (12, (384,), (16,))


def test_drop_path_grows_linearly():
    ours = backbone('dinov2', drop_path_rate=0.3)
    assert [layer.drop_path.drop_prob for layer in ours.vit.encoder.layer] == [0, 0.3]


def test_preprocess_is_that_of_the_folder(folder):
    path = folder(library_model('vit'))
    content = dict(image_mean=[0.5, 0.4, 0.3], image_std=[0.1, 0.2, 0.3])
    (path / 'preprocessor_config.json').write_text(json.dumps(content))
    preprocess = ViTFeatBackbone(path, source='transformers').preprocess
    assert preprocess == dict(mean=[127.5, 102, 76.5], std=[25.5, 51, 76.5], bgr_to_rgb=True)


@pytest.mark.parametrize(
    ('name', 'mean'),
    [('vit', 127.5), ('dinov2', 123.675), ('clip_vision_model', 122.7709), ('swin', 123.675)],
)
def test_preprocess_without_a_folder_is_that_of_the_family(name, mean):
    assert backbone(name).preprocess['mean'][0] == mean


HUB = 'nobody/no-such-vit'


@pytest.mark.parametrize(
    ('name', 'options', 'kind', 'message'),
    [
        (HUB, dict(pretrained=True), RuntimeError, "'nobody/no-such-vit'"),
        (HUB, {}, ValueError, "no config for model_name 'nobody/no-such-vit'"),
        ('/no/such/folder', {}, ValueError, '/no/such/folder'),
        (
            'vit',
            dict(pretrained=True),
            ValueError,
            "needs a name on the hub or a folder, not 'vit'",
        ),
        (transformers.ViTConfig(), dict(pretrained=True), ValueError, 'not ViTConfig'),
        (
            dict(CONFIGS['vit'][1], model_type='vit'),
            dict(frozen_stages=3),
            ValueError,
            "'ViTModel'",
        ),
        (dict(hidden_size=32), {}, ValueError, 'model_type'),
        (dict(model_type='vit', hiden_size=32), {}, ValueError, 'ViTConfig has no hiden_size'),
        (dict(model_type='bert'), {}, ValueError, "model type 'bert'.*knows vit, deit"),
        ('vit', dict(drop_path_rate=0.1), ValueError, 'drop_path_rate=0.1.*no stochastic depth'),
        ('clip', dict(patch_size=(16, 8)), ValueError, r'square patches.*\(16, 8\)'),
        ('beit', dict(with_cls_token=False), ValueError, 'with_cls_token=False: BeitModel cannot'),
        ('siglip', dict(with_cls_token=True), ValueError, 'has no CLS token'),
    ],
)
def test_refusals_are_of_one_line(no_network, name, options, kind, message):
    with pytest.raises(kind, match=message) as caught:
        ViTFeatBackbone(name, source='transformers', **options)
    assert '\n' not in str(caught.value)


KNOWN = (
    'which source transformers does not know here; it knows vit, deit, dinov2, '
    'dinov2_with_registers, dinov3_vit, siglip_vision_model, siglip2_vision_model, '
    'clip_vision_model, beit, vitdet, swin'
)


@pytest.mark.parametrize('pretrained', [False, True])
@pytest.mark.parametrize('model_type', ['radio', 'tipsv2', 'vjepa2', 'sam3', 'hiera', 'llava'])
def test_a_model_type_that_is_not_wrapped_is_refused_as_such(no_network, model_type, pretrained):
    if model_type not in transformers.CONFIG_MAPPING:
        pytest.skip(f'{model_type} is not in transformers {transformers.__version__}')
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        ViTFeatBackbone(model_type, source='transformers', pretrained=pretrained)
    line = f"model_name '{model_type}' is of model type '{model_type}', {KNOWN}"
    assert str(caught.value) == line


@pytest.mark.parametrize('pretrained', [False, True])
@pytest.mark.parametrize(
    ('content', 'model_type'),
    [
        (dict(model_type='vjepa2'), 'vjepa2'),
        (dict(model_type='sam_vision_model'), 'sam_vision_model'),
        # the library does not know these, and would ask whether to run their code
        (dict(model_type='newer_than_this'), 'newer_than_this'),
        (dict(model_type='own', auto_map=dict(AutoConfig='code.OwnConfig')), 'own'),
    ],
)
def test_a_folder_of_another_model_type_is_refused_as_such(
    no_network, content, model_type, pretrained, tmp_path
):
    (tmp_path / 'config.json').write_text(json.dumps(content))
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        ViTFeatBackbone(tmp_path, source='transformers', pretrained=pretrained)
    line = f"model_name '{tmp_path}' is of model type '{model_type}', {KNOWN}"
    assert str(caught.value) == line


def test_a_cached_name_of_another_model_type_is_refused_as_such(no_network, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
    folder = tmp_path / 'models--somebody--radio-large'
    (folder / 'snapshots' / ('0' * 40)).mkdir(parents=True)
    (folder / 'refs').mkdir()
    (folder / 'refs/main').write_text('0' * 40)
    (folder / 'snapshots' / ('0' * 40) / 'config.json').write_text('{"model_type": "radio_next"}')
    for options in ({}, dict(pretrained=True)):
        with pytest.raises(
            ValueError, match="'somebody/radio-large' is of model type 'radio_next'"
        ):
            ViTFeatBackbone('somebody/radio-large', source='transformers', **options)


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('tips', 'no folder, and no model type of transformers'),
        (dict(model_type='radio9'), "model_name dict is of model type 'radio9', which source"),
        (dict(model_type='vjepa2'), "model_name dict is of model type 'vjepa2', which source"),
    ],
)
def test_the_network_is_not_blamed_for_what_is_no_name_on_the_hub(no_network, name, message):
    with pytest.raises(ValueError, match=message) as caught:
        ViTFeatBackbone(name, source='transformers')
    assert 'connect' not in str(caught.value)


def test_a_config_without_a_model_type_says_so(no_network, tmp_path):
    (tmp_path / 'config.json').write_text('{"hidden_size": 32}')
    with pytest.raises(ValueError, match=r'of source transformers: it names no model_type\. Give'):
        ViTFeatBackbone(tmp_path, source='transformers')


def test_a_folder_without_a_config_says_so(no_network, tmp_path):
    (tmp_path / 'model.safetensors').touch()
    with pytest.raises(ValueError, match=r'transformers: the folder has no config\.json\. Give'):
        ViTFeatBackbone(tmp_path, source='transformers', pretrained=True)


@torch.no_grad()
def test_layers_that_take_no_mask_get_none(monkeypatch):
    """As those of DINOv2 before transformers 5.18."""
    vit, x = library_model('dinov2'), images(56, 84)
    expected, kind = layers(vit, x)[-1], type(vit.encoder.layer[0])
    whole = kind.forward
    monkeypatch.setattr(kind, 'forward', lambda self, hidden_states: whole(self, hidden_states))
    ours = ViTFeatBackbone.from_module(vit, out_type='raw').eval()
    assert error(ours(x)[0], expected) <= 1


def test_pretrained_folder_without_weights_is_refused_in_one_line(folder, no_network):
    path = folder(library_model('vit'))
    (path / 'model.safetensors').unlink()
    with pytest.raises(RuntimeError, match=r'no pretrained weights for .*checkpoint=') as caught:
        ViTFeatBackbone(path, source='transformers', pretrained=True)
    assert '\n' not in str(caught.value)


def test_without_transformers_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'transformers', None)
    with pytest.raises(ImportError, match=r"^source='transformers'.*vit_backbones\[transformers\]"):
        ViTFeatBackbone('vit', source='transformers')


def test_a_release_that_is_too_old_is_named(monkeypatch):
    monkeypatch.setattr(transformers, '__version__', '5.8.1')
    line = (
        r"^source='transformers' needs transformers 5\.9 or newer, and 5\.8\.1 is installed: pip "
        r'install vit_backbones\[transformers\]$'
    )
    for build in (
        lambda: backbone('vit'),
        lambda: ViTFeatBackbone.from_module(library_model('vit')),
    ):
        with pytest.raises(ImportError, match=line):
            build()


@torch.no_grad()
def test_comparison_with_the_library_sees_swapped_queries_and_keys():
    vit, x = library_model('vit'), images(224, 224)
    ours = ViTFeatBackbone.from_module(copy.deepcopy(vit), out_type='raw').eval()
    attention = ours.vit.layers[0].attention
    attention.q_proj, attention.k_proj = attention.k_proj, attention.q_proj
    assert error(ours(x)[0], layers(vit, x)[-1]) > 1000
