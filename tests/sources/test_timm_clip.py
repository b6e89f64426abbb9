"""CLIP's weights under a model with another activation: the keys do not show it."""

import functools
import json

import layouts
import pytest
import timm
import torch
from checked_configs import lines_of
from redraw import timm_vit

from vit_backbones.sources.timm_clip import activation_remark

GELU, QUICK = 'vit_base_patch32_clip_224', 'vit_base_patch32_clip_quickgelu_224'
OPENAI = ('visual.conv1.weight', 'input_resolution', 'context_length', 'vocab_size')
DOUBT = (
    f"the keys do not show the activation of these weights: {GELU} has gelu, and OpenAI's CLIP "
    f"needs model_name='{QUICK}'; for others a tag shows that gelu is meant, such as "
    f"model_name='{GELU}.laion2b'"
)


@functools.cache
def small(name):
    return timm_vit(name, depth=1, width=24)


@pytest.fixture
def remark(tmp_path):
    def find(name, layout, names=(), **configs):
        for beside, content in configs.items():
            (tmp_path / f'{beside}.json').write_text(json.dumps(content))
        vit = small(name)
        return activation_remark(name, vit, layout, tmp_path / 'a.pth', names)

    return find


@pytest.mark.parametrize(
    ('name', 'layout', 'expected'),
    [
        (GELU, 'transformers CLIP', DOUBT),
        (f'{GELU}.laion2b', 'transformers CLIP', None),
        (QUICK, 'transformers CLIP', None),
        (GELU, 'OpenCLIP', None),  # LAION's, as a rule
        (GELU, 'mmpretrain', None),
        (GELU, 'timm', None),
        (GELU, '', None),
        (
            f'{GELU}.openai',
            'timm',
            "the weights need quick_gelu (timm's note on them), and vit_base_patch32_clip_224."
            "openai has gelu: take 'vit_base_patch32_clip_quickgelu_224.openai'",
        ),
        ('vit_base_patch16_siglip_224', 'transformers SigLIP', None),
        ('vit_base_patch16_224', 'transformers CLIP', None),
    ],
)
def test_only_a_doubt_is_warned_of(name, layout, expected, remark):
    assert remark(name, layout) == expected


def test_pretrained_weights_that_timm_notes_are_warned_of(remark):
    assert remark(f'{GELU}.openai', '').startswith('the weights need quick_gelu')
    assert remark(f'{QUICK}.openai', '') is None
    vit = small(f'{GELU}.openai')
    line = activation_remark(f'hf-hub:timm/{GELU}.openai', vit, '', None, ())
    assert line.endswith(f"take '{QUICK}.openai'")
    assert remark(f'{GELU}.laion2b', '') is None


def test_the_files_that_openai_published_are_known(remark):
    assert remark(GELU, 'OpenCLIP', OPENAI) == (
        f"the weights need quick_gelu (OpenAI's own file), and {GELU} has gelu: take '{QUICK}'"
    )
    assert remark(QUICK, 'OpenCLIP', OPENAI) is None


@pytest.mark.parametrize('act', ['gelu', 'quick_gelu'])
@pytest.mark.parametrize('nested', [True, False])
def test_a_config_beside_the_file_decides(act, nested, remark):
    vision = dict(model_type='clip_vision_model', hidden_act=act)
    config = dict(model_type='clip', vision_config=vision) if nested else vision
    fitting, other = (GELU, QUICK) if act == 'gelu' else (QUICK, GELU)
    assert remark(fitting, 'transformers CLIP', config=config) is None
    assert remark(other, 'transformers CLIP', config=config) == (
        f'the weights need {act} (config.json beside them), and {other} has '
        f"{'quick_gelu' if act == 'gelu' else 'gelu'}: take '{fitting}'"
    )


def test_a_config_of_openclip_decides(remark):
    quick = dict(model_cfg=dict(quick_gelu=True))
    assert remark(GELU, 'OpenCLIP', open_clip_config=quick) == (
        f'the weights need quick_gelu (open_clip_config.json beside them), and {GELU} has gelu: '
        f"take '{QUICK}'"
    )
    plain = dict(model_cfg=dict(embed_dim=512))
    assert remark(GELU, 'OpenCLIP', open_clip_config=plain) is None


@pytest.mark.parametrize('text', ['', '[]', '{"model_type": "vit"}', '{"model_cfg": 1}', '\0'])
def test_other_files_beside_say_nothing(text, remark, tmp_path):
    (tmp_path / 'config.json').write_text(text)
    assert remark(GELU, 'transformers CLIP') == DOUBT
    assert remark(GELU, 'OpenCLIP') is None


def test_sizes_without_a_twin_name_another_with_their_size(remark):
    assert (
        remark('vit_base_patch16_clip_384', 'transformers CLIP')
        .split('; ')[0]
        .endswith("needs model_name='vit_base_patch16_clip_quickgelu_224' with img_size=(384, 384)")
    )
    assert remark('vit_base_patch16_plus_clip_240', 'transformers CLIP') is None


def test_the_tag_that_is_advised_exists_and_ends_the_doubt(remark):
    twins = [name for name in timm.list_models('vit_*_clip_*') if 'quickgelu' not in name]
    lines = {name: remark(name, 'transformers CLIP') for name in twins if 'medium' not in name}
    advised = {
        name: line.partition('such as model_name=')[2] for name, line in lines.items() if line
    }
    assert advised['vit_large_patch14_clip_336'] == "'vit_large_patch14_clip_336.laion2b_ft_in1k'"
    assert advised['vit_base_patch32_clip_256'] == "'vit_base_patch32_clip_256.datacompxl'"
    for tagged in filter(None, advised.values()):
        assert timm.get_pretrained_cfg(tagged.strip("'")).hf_hub_id
        assert remark(tagged.strip("'"), 'transformers CLIP') is None


def test_loading_warns_once_and_keeps_the_line(log, tmp_path):
    pytest.importorskip('transformers')
    more = dict(intermediate_size=96, image_size=224, patch_size=32, layer_norm_eps=1e-5)
    weights = layouts.transformers_model('CLIPVision', **more).state_dict()
    vit = layouts.load(weights, tmp_path, GELU, norm='none')
    line = f"checkpoint '{tmp_path}/a.pth': {DOUBT}"
    assert [each for each in log if 'activation' in each] == [line]
    assert vit.weights.remark == line
    log.clear()
    assert layouts.load(weights, tmp_path, QUICK, norm='none').weights.remark is None
    assert not [each for each in log if 'gelu' in each]


CLIP = """
model['backbone'] = dict(
    type='ViTFeatBackbone', model_name='vit_base_patch32_clip_224', checkpoint='clip.pth',
    out_indices=0, norm='none',
)
model['decode_head'].update(in_channels=[768], in_index=[0])
model['data_preprocessor'].update(
    mean=[122.7709, 116.746, 104.0937], std=[68.5005, 66.6322, 70.3232]
)
"""


def test_check_config_has_the_line(check, folder):
    transformers = pytest.importorskip('transformers')
    config = transformers.CLIPVisionConfig(num_hidden_layers=1)
    torch.save(transformers.CLIPVisionModel(config).state_dict(), 'clip.pth')
    (folder / 'clip.py').write_text((folder / 'seg.py').read_text() + CLIP)
    line = f"warning: checkpoint 'clip.pth': {DOUBT}"
    assert lines_of(check('clip.py')[1], line)
    (folder / 'config.json').write_text(config.to_json_string())
    line = "warning: checkpoint 'clip.pth': the weights need quick_gelu (config.json beside them)"
    assert lines_of(check('clip.py')[1], line)


def test_names_that_settle_it_are_not_warned_of():
    for name in (GELU, QUICK, f'{GELU}.datacompxl', f'{QUICK}.metaclip_400m'):
        assert activation_remark(name, small(name), '', None, ()) is None
