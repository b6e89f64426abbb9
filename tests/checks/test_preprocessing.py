"""Images reach a backbone as its weights expect them: normalised once, and RGB."""

import copy
from pathlib import Path

import pytest
import timm
import torch
from checked_configs import DETECTOR, SEGMENTER, lines_of
from mmengine.config import Config
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from vit_backbones import ViTFeatBackbone
from vit_backbones.checkpoints.origin import IMAGENET
from vit_backbones.checks.preprocessing import preprocessing_findings
from vit_backbones.checks.recipe import model_findings
from vit_backbones.config.facts import Facts, model_chain
from vit_backbones.config.loading import load_config

TAGGED = 'test_vit.r160_in1k'
BGR = (
    'the weights of test_vit.r160_in1k expect RGB and get BGR: train_dataloader.dataset.pipeline '
    'gives {order}, and data_preprocessor {happens}: write bgr_to_rgb={turns} there{more}'
)
LEFT = BGR.format(order='BGR', happens='leaves it so', turns=True, more='')
TURNED = BGR.format(order='RGB', happens='turns it', turns=False, more=', and no rgb_to_bgr')
NORMALIZE = dict(type='Normalize', mean=[127.5] * 3, std=[127.5] * 3)


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp('weights') / 'a.pth'
    torch.save(timm.create_model('test_vit').state_dict(), path)
    return str(path)


@pytest.fixture
def findings(weights, tmp_path):
    """Findings on a config with weights, after changes of its preprocessor and its pipeline."""

    def find(preprocessor=(), steps=(), *, text=SEGMENTER, loader=(), name=TAGGED, **backbone):
        (tmp_path / 'a.py').write_text(text)
        config = Config.fromfile(str(tmp_path / 'a.py'))
        init_default_scope(config.default_scope)
        config.model.data_preprocessor.update(dict(preprocessor))
        del config.model.backbone['pretrained']
        config.model.backbone.update(dict(model_name=name, checkpoint=weights) | backbone)
        pipeline = config.train_dataloader.dataset.pipeline
        pipeline[0].update(dict(loader))
        pipeline[1:1] = steps
        facts = Facts.of(config, ('train', 'val'))
        model = MODELS.build(copy.deepcopy(config.model))
        found = preprocessing_findings(model, facts, expects=facts.names_weights)
        return [f'{each.level}: {each.text}' for each in found]

    return find


@pytest.mark.parametrize('text', [SEGMENTER, DETECTOR], ids=['mmseg', 'mmdet'])
def test_configs_in_order_have_no_finding(text, findings):
    assert findings(text=text) == []
    assert findings(dict(bgr_to_rgb=False, rgb_to_bgr=True), text=text) == []
    assert findings(text=text, loader=dict(imdecode_backend='pillow')) == []
    assert findings(text=text, loader=dict(color_type='unchanged')) == []
    apart = dict(mean=None, std=None, bgr_to_rgb=False)
    assert findings(apart, [NORMALIZE], text=text) == []
    apart['bgr_to_rgb'] = True
    assert findings(apart, [NORMALIZE | dict(to_rgb=False)], text=text) == []


@pytest.mark.parametrize('text', [SEGMENTER, DETECTOR], ids=['mmseg', 'mmdet'])
def test_images_that_stay_bgr_are_warned_of(text, findings):
    assert findings(dict(bgr_to_rgb=False), text=text) == [f'warning: {LEFT}']
    plain = dict(mean=None, std=None, bgr_to_rgb=False)
    assert findings(plain, [NORMALIZE | dict(to_rgb=False)], text=text) == [
        f'warning: {LEFT}'.replace('bgr_to_rgb=True there', 'to_rgb=True in Normalize')
    ]


@pytest.mark.parametrize('text', [SEGMENTER, DETECTOR], ids=['mmseg', 'mmdet'])
@pytest.mark.parametrize('turn', [dict(bgr_to_rgb=True), dict(bgr_to_rgb=False, rgb_to_bgr=True)])
def test_images_that_are_turned_twice_are_warned_of(turn, text, findings):
    assert findings(turn, text=text, loader=dict(imdecode_backend='tifffile')) == [
        f'warning: {TURNED}'
    ]
    plain = dict(mean=None, std=None)
    assert findings(plain | turn, [NORMALIZE], text=text) == [f'warning: {TURNED}']


@pytest.mark.parametrize(
    'changes',
    [
        dict(loader=dict(type='LoadBiomedicalImageFromFile')),
        dict(loader=dict(color_type='grayscale')),
        dict(steps=[dict(type='MyBGR2RGB')]),
    ],
)
def test_an_order_that_cannot_be_known_is_not_guessed(changes, findings):
    assert findings(dict(bgr_to_rgb=False), **changes) == []


NOTHING = (
    'warning: nothing normalises the images of train_dataloader.dataset.pipeline, neither the '
    'pipeline nor the data_preprocessor: give the data_preprocessor mean=[127.5, 127.5, 127.5] and '
    'std=[127.5, 127.5, 127.5], which the weights of test_vit.r160_in1k expect'
)


@pytest.mark.parametrize('text', [SEGMENTER, DETECTOR], ids=['mmseg', 'mmdet'])
@pytest.mark.parametrize(
    'preprocessor', [dict(mean=None, std=None), dict(mean=[0.0] * 3, std=[1.0] * 3)]
)
def test_images_that_nothing_normalises_are_warned_of(preprocessor, text, findings):
    assert findings(preprocessor, text=text) == [NOTHING]


@pytest.mark.parametrize(
    'step',
    [
        dict(type='Albu', transforms=[dict(type='Normalize', mean=[0.5] * 3, std=[0.5] * 3)]),
        dict(type='MyNormalization'),
    ],
)
def test_steps_that_may_normalise_are_left_in_peace(step, findings):
    assert findings(dict(mean=None, std=None), [step]) == []


def test_images_of_one_channel_have_no_order(findings):
    grey = dict(mean=[127.5], std=[127.5], bgr_to_rgb=False)
    assert findings(grey, loader=dict(color_type='grayscale'), in_channels=1) == []
    assert findings(grey, in_channels=1) == []
    assert len(findings(grey, in_channels=3)) == 1


def test_images_that_are_normalised_twice_are_warned_of(findings):
    assert findings(dict(bgr_to_rgb=False), [NORMALIZE]) == [
        'warning: train_dataloader.dataset.pipeline has Normalize, and data_preprocessor '
        'normalises by mean and std again: leave one of them out'
    ]
    assert len(findings(dict(bgr_to_rgb=True), [NORMALIZE])) == 1  # which order counts is open


def test_the_mean_of_a_pipeline_is_compared_too(findings):
    other = dict(NORMALIZE, mean=[123.68, 116.28, 103.53])
    assert findings(dict(mean=None, std=None, bgr_to_rgb=False), [other]) == [
        'warning: train_dataloader.dataset.pipeline: Normalize.mean is [123.68, 116.28, 103.53], '
        'but the weights of test_vit.r160_in1k expect [127.5, 127.5, 127.5], RGB on 0-255: set '
        'mean and std to backbone.preprocess'
    ]


SWAPPED = (
    'warning: train_dataloader.dataset.pipeline: Normalize.{name} is {given}, but the weights of '
    'test_vit.r160_in1k expect {expected}, BGR on 0-255: set mean and std to '
    'backbone.preprocess, with to_rgb=True'
)


def test_a_mean_for_bgr_is_in_that_order(findings, monkeypatch):
    monkeypatch.setattr(ViTFeatBackbone, 'preprocess', dict(IMAGENET))
    mean, std = IMAGENET['mean'], IMAGENET['std']
    step = dict(type='Normalize', mean=mean[::-1], std=std[::-1], to_rgb=False)
    apart = dict(mean=None, std=None, bgr_to_rgb=True)
    assert findings(apart, [step]) == []
    assert findings(apart, [step | dict(mean=mean, std=std)]) == [
        SWAPPED.format(name='mean', given=[123.67, 116.28, 103.53], expected=mean[::-1]),
        SWAPPED.format(name='std', given=[58.4, 57.12, 57.38], expected=std[::-1]),
    ]


def test_a_deviation_for_images_on_0_1_is_warned_of(findings):
    small = dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    assert findings(small, name='test_vit') == [
        UNKNOWN,
        'warning: data_preprocessor.std is [0.23, 0.22, 0.22], as for images on 0-1, and these are '
        'on 0-255: multiply mean and std by 255',
    ]
    assert findings(small, name='test_vit', loader=dict(type='LoadElsewhere')) == [UNKNOWN]


UNKNOWN = (
    'note: nothing shows which mean and std the weights of test_vit expect: compare those of the '
    "data_preprocessor with their authors'; a tag in the model's name, such as NAME.mae, shows them"
)


def test_weights_that_show_nothing_get_a_note_and_no_advice(findings):
    assert findings(dict(mean=[50.0] * 3), name='test_vit') == [UNKNOWN]
    assert findings(dict(mean=None, std=None), name='test_vit') == [
        'warning: nothing normalises the images of train_dataloader.dataset.pipeline, neither the '
        'pipeline nor the data_preprocessor: give the data_preprocessor the mean and std that the '
        'weights expect'
    ]


def test_random_weights_expect_nothing(findings):
    wrong = dict(mean=None, std=None, bgr_to_rgb=False)
    assert findings(wrong, checkpoint=None) == []


def test_a_model_without_a_preprocessor_is_warned_of_once(weights, tmp_path):
    (tmp_path / 'a.py').write_text(SEGMENTER)
    config = load_config(str(tmp_path / 'a.py'))
    init_default_scope('mmseg')
    config.model.backbone.update(model_name=TAGGED, checkpoint=weights)
    del config.model['data_preprocessor']
    model = MODELS.build(copy.deepcopy(config.model))
    assert type(model.data_preprocessor) is BaseDataPreprocessor
    found = preprocessing_findings(model, Facts.of(config, ('train',)))
    assert [each.text for each in found] == [NOTHING.removeprefix('warning: '), LEFT]
    assert {each.text for each in model_findings(Facts.of(config, ('train',)), model)} >= {LEFT}


def test_a_preprocessor_beside_the_model_counts(check, folder, weights):
    text = SEGMENTER.replace('pretrained=False', f'checkpoint={weights!r}')
    text = text.replace("'test_vit'", f"'{TAGGED}'") + (
        "data_preprocessor = model.pop('data_preprocessor')\n"
    )
    (folder / 'beside.py').write_text(text)
    assert lines_of(check('beside.py')[1])


CONFIGS = Path(__file__).parents[2] / 'configs'
RECIPES = [
    pytest.param(str(path.relative_to(CONFIGS)), marks=[pytest.mark.slow] if number else [])
    for folder in sorted(CONFIGS.glob('[a-z]*/'))
    for number, path in enumerate(sorted(folder.glob('*.py')))
]


@pytest.mark.parametrize('name', RECIPES)
def test_shipped_recipes_have_no_finding(name):
    """With their weights in timm's keys: a tag shows how to normalise."""
    config = load_config(CONFIGS / name)
    init_default_scope(config.default_scope)
    model = nn.Module()
    model.data_preprocessor = MODELS.build(config.model.data_preprocessor)
    wanted = model_chain(config.model)[-1] | dict(pretrained=False, checkpoint=None)
    with torch.device('meta'):
        model.backbone = MODELS.build(wanted)
    model.backbone.vit.layout = 'timm'
    facts = Facts.of(config, ('train', 'val'))
    assert facts.names_weights
    assert [*preprocessing_findings(model, facts, expects=True)] == []
