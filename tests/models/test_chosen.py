"""The backbone that a command line asks for: its weights, its layers, its normalisation."""

import argparse
import logging

import layouts
import numpy as np
import pytest
import torch
from conftest import load_tool
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import ImgDataPreprocessor
from mmengine.registry import MODELS, init_default_scope

from vit_backbones.backbone import ViTFeatBackbone
from vit_backbones.checkpoints.origin import encode
from vit_backbones.models import chosen
from vit_backbones.models.chosen import Choice, load_backbone
from vit_backbones.models.random_weights import redraw

MODEL = Choice(model='test_vit', random_weights=0)
ADAPTER = """
_base_ = 'seg.py'
backbone = dict(
    type='ViTFeatBackbone', model_name='test_vit', out_indices=(0, 1, 2, 3), norm='none'
)
model = dict(
    backbone=dict(_delete_=True, type='ViTAdapter', backbone=backbone, num_heads=2),
    decode_head=dict(in_channels=[64, 64]),
)
"""


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 40, 56, 3), dtype=np.uint8)


def features(loaded, images):
    return loaded.backbone(loaded.normalised(images))


def equal(one, other):
    return len(one) == len(other) and all(map(torch.equal, one, other))


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """A file of weights for `test_vit`, and the model that has them."""
    backbone = ViTFeatBackbone('test_vit').eval()
    redraw(backbone.vit, 3)
    path = tmp_path_factory.mktemp('weights') / 'weights.pth'
    torch.save(backbone.vit.state_dict(), path)
    return str(path), backbone


@pytest.fixture
def trained(folder):
    """Train a config's model, so to speak: (config, checkpoint, the model)."""

    def train(text, name='trained.py'):
        (folder / name).write_text(text)
        config = Config.fromfile(str(folder / name))
        init_default_scope('mmseg')
        model = redraw(MODELS.build(config.model), 5).eval()
        torch.save(dict(meta=dict(epoch=1), state_dict=model.state_dict()), folder / 'epoch_1.pth')
        return name, 'epoch_1.pth', model

    return train


def test_the_command_line_gives_the_choice():
    parser = argparse.ArgumentParser()
    load_tool('_command_line').add_backbone_options(parser)
    assert Choice.of(parser.parse_args([])) == Choice(options=[])
    words = '--config c.py --cfg-options a=1 b=2 --checkpoint w.pth --img-size 32 64 --layers 1 -1'
    assert Choice.of(parser.parse_args(words.split())) == Choice(
        config='c.py', options=['a=1', 'b=2'], checkpoint='w.pth', img_size=[32, 64],
        layers=['1', '-1'],
    )  # fmt: skip


@pytest.mark.parametrize('choice', [Choice(), Choice(model='test_vit', config='seg.py')])
def test_either_a_model_or_a_config(choice):
    with pytest.raises(ValueError, match='name one of model=NAME and config=CONFIG'):
        load_backbone(choice)


@pytest.mark.parametrize('choice', [Choice(model='test_vit'), Choice(config='seg.py')])
def test_weights_must_come_from_somewhere(choice, folder):
    with pytest.raises(ValueError, match=r'random weights help nobody: .* random_weights=SEED'):
        load_backbone(choice)


@pytest.mark.parametrize(
    ('given', 'named'),
    [
        (dict(pretrained=True, checkpoint='w.pth'), r'pretrained=True and checkpoint=\.\.\.'),
        (
            dict(checkpoint='w.pth', random_weights=0),
            r'checkpoint=\.\.\. and random_weights=\.\.\.',
        ),
    ],
)
def test_weights_come_from_one_place(given, named):
    with pytest.raises(ValueError, match=f'{named}: give one of them'):
        load_backbone(Choice(model='test_vit', **given))


def test_random_weights_are_those_of_their_seed(images):
    first, again = (features(load_backbone(MODEL), images) for _ in range(2))
    other = features(load_backbone(MODEL._replace(random_weights=1)), images)
    assert equal(first, again)
    assert not torch.allclose(first[0], other[0])
    assert load_backbone(MODEL).weights == 'random, seed 0'


def test_a_loaded_backbone_is_ready_to_run():
    loaded = load_backbone(MODEL)
    assert not loaded.backbone.training
    assert not any(parameter.requires_grad for parameter in loaded.backbone.parameters())
    assert loaded.name == 'test_vit'


@pytest.mark.parametrize(
    ('layers', 'expected'),
    [
        (None, [-1]),
        (['1', '-1'], [1, -1]),
        ('even4', [0, 2, 3, 5]),
        (['last4'], [2, 3, 4, 5]),
        ('2', [2]),
    ],
)
def test_layers(layers, expected, images):
    found = features(load_backbone(MODEL._replace(layers=layers)), images)
    assert equal(found, features(load_backbone(MODEL, out_indices=expected), images))


@pytest.mark.parametrize('layers', [['last'], ['even4', '1'], ['1.5']])
def test_other_layers_are_told(layers):
    with pytest.raises(
        ValueError, match=rf"layers=\.\.\. takes numbers .* got '{' '.join(layers)}'"
    ):
        load_backbone(MODEL._replace(layers=layers))


def test_a_layer_that_the_model_lacks_is_told():
    with pytest.raises(ValueError, match='9'):
        load_backbone(MODEL._replace(layers=['9']))


@pytest.mark.parametrize('size', [(32, 64), [32, 64]])
def test_the_model_is_built_for_a_size(size):
    vit = load_backbone(MODEL._replace(img_size=size)).backbone.vit
    assert vit.patch_embed.img_size == (32, 64)


def test_a_file_of_weights(weights, images):
    path, backbone = weights
    loaded = load_backbone(Choice(model='test_vit', checkpoint=path))
    assert equal(features(loaded, images), backbone(loaded.normalised(images)))
    assert loaded.weights == path


def test_a_file_that_does_not_exist_is_told():
    with pytest.raises(OSError, match=r'none\.pth'):
        load_backbone(Choice(model='test_vit', checkpoint='none.pth'))


def test_options_of_the_call_reach_the_backbone(images):
    loaded = load_backbone(MODEL, pool='avg')
    assert features(loaded, images)[0].shape == (2, 64)


def test_options_of_the_call_replace_what_forms_the_output_in_a_config(folder, images):
    options = [
        'model.backbone.out_stride=8',
        'model.backbone.cls_readout=add',
        'model.backbone.norm=none',
    ]
    choice = Choice(config='seg.py', options=options, random_weights=0)
    plain = Choice(model='test_vit', random_weights=0)
    found = features(load_backbone(choice, out_type='raw'), images)
    expected = load_backbone(plain, out_type='raw', out_indices=(1, 3), norm='none')
    assert equal(found, features(expected, images))
    assert features(load_backbone(choice), images)[0].shape == (2, 64, 5, 7)


def test_pooling_replaces_the_out_type_of_a_config(folder, images):
    options = ['model.backbone.out_type=raw']
    choice = Choice(config='seg.py', options=options, random_weights=0)
    assert load_backbone(choice, pool='avg').backbone.pool == 'avg'


def test_changes_without_a_config_are_refused():
    with pytest.raises(ValueError, match=r'they go with config=\.\.\., not model'):
        load_backbone(MODEL._replace(options=['model.backbone.norm=all']))


def test_a_config_names_its_weights(folder, weights, images):
    choice = Choice(config='seg.py', options=[f'model.backbone.checkpoint={weights[0]}'])
    loaded = load_backbone(choice, out_indices=-1)
    assert equal(features(loaded, images), weights[1](loaded.normalised(images)))
    assert (loaded.name, loaded.weights) == ('seg', 'of seg.py')


def test_the_command_line_replaces_the_weights_of_a_config(folder, images):
    options = ['model.backbone.checkpoint=none.pth']
    loaded = load_backbone(Choice(config='seg.py', options=options, random_weights=0))
    model = load_backbone(MODEL, out_indices=(1, 3), norm='all')
    assert equal(features(loaded, images), features(model, images))


@pytest.mark.parametrize('option', ['model.backbone.type=ResNet', 'model.backbone=None'])
def test_another_backbone_is_refused(option, folder):
    with pytest.raises(ValueError, match=r'seg\.py: model\.backbone is .* ViTFeatBackbone is need'):
        load_backbone(Choice(config='seg.py', options=[option], random_weights=0))


def test_a_config_may_give_the_backbone_as_a_class(folder, images):
    text = (folder / 'seg.py').read_text().replace("'ViTFeatBackbone'", 'ViTFeatBackbone')
    (folder / 'new.py').write_text(f'from vit_backbones import ViTFeatBackbone\n{text}')
    found, named = (load_backbone(Choice(config=c, random_weights=0)) for c in ('new.py', 'seg.py'))
    assert equal(features(found, images), features(named, images))


def test_a_config_without_a_model_is_refused(folder):
    (folder / 'data.py').write_text('batch_size = 2\n')
    with pytest.raises(ValueError, match=r'data\.py: .*a ViTFeatBackbone is needed here'):
        load_backbone(Choice(config='data.py', random_weights=0))


def test_a_misspelt_argument_of_a_config_is_told(folder):
    text = (folder / 'seg.py').read_text().replace("norm='all'", "nrom='all'")
    (folder / 'seg.py').write_text(text)
    with pytest.raises(ValueError, match='nrom'):
        load_backbone(Choice(config='seg.py', random_weights=0))


def test_a_trained_checkpoint_gives_the_features_of_the_trained_model(trained, images):
    config, checkpoint, model = trained("_base_ = 'seg.py'\n")
    loaded = load_backbone(Choice(config=config, checkpoint=checkpoint))
    assert equal(features(loaded, images), model.backbone(loaded.normalised(images)))
    for name, value in model.backbone.vit.state_dict().items():
        assert torch.equal(loaded.backbone.vit.state_dict()[name], value)


def test_a_trained_checkpoint_fits_the_model_by_its_name(trained, images):
    _, checkpoint, model = trained("_base_ = 'seg.py'\n")
    model_alone = Choice(model='test_vit', checkpoint=checkpoint, layers=['1', '3'])
    loaded = load_backbone(model_alone, norm='all')
    assert equal(features(loaded, images), model.backbone(loaded.normalised(images)))


def test_the_backbone_inside_a_trained_adapter_is_taken(trained, images):
    config, checkpoint, model = trained(ADAPTER)
    loaded = load_backbone(Choice(config=config, checkpoint=checkpoint))
    inner = model.backbone.backbone
    assert equal(features(loaded, images), inner(loaded.normalised(images)))


def test_a_model_is_normalised_as_its_weights_want(images):
    loaded = load_backbone(MODEL)
    assert (loaded.mean, loaded.std) == ((127.5,) * 3, (127.5,) * 3)
    expected = torch.tensor((images.astype(np.float32) - 127.5) / 127.5).permute(0, 3, 1, 2)
    assert torch.allclose(loaded.normalised(images), expected)


@pytest.mark.parametrize('to_rgb', [True, False])
def test_a_config_normalises_as_its_data_preprocessor(to_rgb, folder, images):
    mean, std = [100.0, 110, 120], [50.0, 60, 70]
    options = [
        f'model.data_preprocessor.mean={mean}'.replace(' ', ''),
        f'model.data_preprocessor.std={std}'.replace(' ', ''),
        f'model.data_preprocessor.bgr_to_rgb={to_rgb}',
    ]
    loaded = load_backbone(Choice(config='seg.py', options=options, random_weights=0))
    preprocessor = ImgDataPreprocessor(mean=mean, std=std, bgr_to_rgb=to_rgb)
    as_read = torch.from_numpy(images[..., ::-1].copy()).permute(0, 3, 1, 2)  # BGR
    expected = preprocessor(dict(inputs=list(as_read)))['inputs']
    assert torch.allclose(loaded.normalised(images), expected)


def test_a_data_preprocessor_without_a_mean_leaves_pixels_as_they_are(folder, images):
    options = ['model.data_preprocessor.mean=None', 'model.data_preprocessor.std=None']
    loaded = load_backbone(Choice(config='seg.py', options=options, random_weights=0))
    assert torch.equal(loaded.normalised(images), torch.tensor(images).permute(0, 3, 1, 2).float())


def test_nothing_is_logged_but_warnings(weights, capfd):
    level = MMLogger.get_current_instance().level
    load_backbone(Choice(model='test_vit.r160_in1k', checkpoint=weights[0]))
    assert ''.join(capfd.readouterr()) == ''
    assert MMLogger.get_current_instance().level == level


ASSUMED = (
    'nothing shows which normalisation the weights of test_vit expect: images get mean [127.5, '
    '127.5, 127.5] and std [127.5, 127.5, 127.5], RGB on 0-255, as in the library; others come '
    "with a tag in the model's name, such as NAME.mae, or with the data_preprocessor of a config"
)


@pytest.fixture
def logged(monkeypatch):
    lines = []

    def keep(text, logger, level):
        lines.append((text, logger, level))

    monkeypatch.setattr(chosen, 'print_log', keep)
    return lines


def test_a_normalisation_that_nothing_shows_is_named(weights, folder, logged):
    loaded = load_backbone(Choice(model='test_vit', checkpoint=weights[0]))
    assert (loaded.mean, loaded.std, loaded.is_bgr) == ((127.5,) * 3, (127.5,) * 3, False)
    assert logged == [(ASSUMED, 'current', logging.WARNING)]
    logged.clear()
    load_backbone(Choice(model='test_vit.r160_in1k', checkpoint=weights[0]))
    load_backbone(Choice(config='seg.py', checkpoint=weights[0]))
    load_backbone(MODEL)
    assert not logged


def test_a_file_decides_the_normalisation(tmp_path, logged):
    mae = layouts.mae(ViTFeatBackbone('test_vit').vit.state_dict())
    loaded = load_backbone(Choice(model='test_vit', checkpoint=str(layouts.write(mae, tmp_path))))
    assert loaded.mean == (123.675, 116.28, 103.53)
    assert not logged


def test_fingerprints_of_older_versions_stay(tmp_path):
    """The record of a layout counts only where something reads it."""
    vit = ViTFeatBackbone('test_vit.r160_in1k')
    path = str(layouts.write(vit.vit.state_dict(), tmp_path))
    loaded = load_backbone(Choice(model='test_vit.r160_in1k', checkpoint=path))
    before = loaded.fingerprint()
    loaded.backbone.weights_layout.zero_()
    assert loaded.fingerprint() == before
    loaded.backbone.weights_layout.copy_(encode('transformers SigLIP'))  # with another GELU
    assert loaded.fingerprint() != before
    loaded.backbone.weights_layout.zero_()
    loaded.backbone.pos_interp = 'original'
    zero = loaded.fingerprint()
    loaded.backbone.weights_layout.fill_(1)
    assert loaded.fingerprint() != zero
