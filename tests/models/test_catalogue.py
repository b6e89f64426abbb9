"""`python -m vit_backbones list`."""

import re

import pytest
import timm
import torchvision

from vit_backbones import ViTFeatBackbone
from vit_backbones.__main__ import main
from vit_backbones.models import catalogue


def test_licences_are_those_of_timm_and_torchvision():
    models = {(each.source, each.name): each for each in catalogue.find_models()}
    for name in ('vit_small_patch16_dinov3.lvd1689m', 'vit_base_patch16_224.mae'):
        config = timm.get_pretrained_cfg(name)
        assert models['timm', name].licence == config.license is not None
        assert models['timm', name].size == config.input_size[1:]
    weights = torchvision.models.ViT_H_14_Weights.DEFAULT
    assert models['torchvision', 'vit_h_14'].licence == weights.meta['license']
    assert models['torchvision', 'vit_h_14'].size == (518, 518)
    assert models['transformers', 'dinov2'].licence is None


def test_models_without_weights_are_listed_once_and_without_a_licence():
    (model,) = catalogue.find_models('convnext_atto_rms')
    assert (model.name, model.licence) == ('convnext_atto_rms', None)
    names = [each.name for each in catalogue.find_models(source='timm')]
    assert len(set(names)) == len(names)
    assert {name.split('.')[0] for name in names} == set(timm.list_models())


def test_patterns__wildcards_for_the_whole_name_else_a_part():
    assert [each.name for each in catalogue.find_models('vit_?_16')] == ['vit_b_16', 'vit_l_16']
    parts = {each.name for each in catalogue.find_models('DINOv3')}
    assert parts == {each.name for each in catalogue.find_models('*dinov3*')}
    assert len(parts) > 10


def test_list__builds_few_models_for_their_sizes(capsys):
    assert main(['list', 'test_vit.*', '--source', 'timm']) == 0
    lines = capsys.readouterr().out.splitlines()
    backbone = ViTFeatBackbone('test_vit')
    number = sum(each.numel() for each in backbone.parameters()) / 1e6
    pattern = rf'test_vit\.\S+ +{number:.1f} M +160x160 +16 +64 +timm +apache-2.0'
    assert any(re.fullmatch(pattern, line) for line in lines), lines
    assert lines[0].split()[:5] == ['model', 'params', 'input', 'stride', 'width']


def test_list__spans_of_a_hierarchical_model(capsys):
    main(['list', 'pvt_v2_b0', '--source', 'timm'])
    row = capsys.readouterr().out.splitlines()[1]
    assert re.search(r' 4-32 +32-256 +timm +apache-2.0$', row)


def test_list__many_models_are_not_built(capsys, monkeypatch):
    monkeypatch.setattr(catalogue, 'ViTFeatBackbone', None)
    assert main(['list']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith(f'{len(lines) - 2} models; a pattern that leaves 30 or fewer')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['dinvo2'], "no model matches 'dinvo2'; did you mean dinov2"),
        (['*vit_base_patch16_225*'], 'did you mean vit_base_patch16_224'),
        (['qqqqqq'], "no model matches 'qqqqqq'"),
        (['--source', 'tim'], "--source must be one of timm, .*, got 'tim'"),
        (['--source', 'lightly'], 'lightly takes the names of timm and torchvision'),
    ],
)
def test_list__what_is_not_there_is_one_line(arguments, message, capsys):
    assert main(['list', *arguments]) == 2
    assert re.fullmatch(f'error: .*{message}.*\n', capsys.readouterr().err)


def test_list__a_closed_pipe_is_no_error(monkeypatch):
    def closed(*args):
        raise BrokenPipeError

    monkeypatch.setattr(catalogue, 'list_models', closed)
    monkeypatch.setattr('sys.stdout', None)
    assert main(['list']) == 0
