"""Where published weights come from: commands, and the errors of files that are not there."""

from pathlib import Path

import pytest
import timm
from checked_configs import errors_of
from conftest import load_tool
from mmengine.config import Config

from vit_backbones import ViTFeatBackbone
from vit_backbones.checks.preflight import weight_file_findings
from vit_backbones.config.facts import Facts
from vit_backbones.sources.presets import SAPIENS
from vit_backbones.sources.published import published, where_to_get

ROOT = Path(__file__).parents[2]
TINY = 'timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k'
TAGGED = 'vit_tiny_patch16_224.augreg_in21k_ft_in1k'
OF_TRAINING = '; a training writes files of such names: run that one first, or give another file'
DOWNLOAD = f'hf download {TINY} model.safetensors --local-dir'


@pytest.mark.parametrize(
    ('path', 'rest'),
    [
        (
            'weights/vit_tiny_patch16_224.safetensors',
            f'{DOWNLOAD} weights && mv weights/model.safetensors '
            'weights/vit_tiny_patch16_224.safetensors',
        ),
        (
            f'{TAGGED}.safetensors',
            f'{DOWNLOAD} . && mv model.safetensors {TAGGED}.safetensors',
        ),
        ('weights/model.safetensors', f'{DOWNLOAD} weights'),
        # a file of another name or kind may be of somebody else
        (
            'weights/vitdet_b.safetensors',
            f'{DOWNLOAD} weights, and give weights/model.safetensors instead',
        ),
        (
            'weights/vit_tiny_patch16_224.pth',
            f'{DOWNLOAD} weights, and give weights/model.safetensors instead',
        ),
        (
            'my weights/vit_tiny_patch16_224.safetensors',
            f"{DOWNLOAD} 'my weights' && mv 'my weights/model.safetensors' "
            "'my weights/vit_tiny_patch16_224.safetensors'",
        ),
    ],
)
@pytest.mark.parametrize('name', ['vit_tiny_patch16_224', TAGGED])
def test_the_command_leaves_the_file_where_it_was_looked_for(name, path, rest):
    if path.startswith(TAGGED) and name != TAGGED:
        pytest.skip('a name without the tag does not say that the file is of these weights')
    assert where_to_get('timm', name, path) == f'; get the published weights of {name} by: {rest}'


def test_sapiens_has_a_repository_of_its_own():
    file = 'sapiens_0.3b_epoch_1600_clean.pth'
    inside = f'sapiens_host/pretrain/checkpoints/sapiens_0.3b/{file}'
    assert where_to_get('sapiens', 'sapiens_0.3b', f'weights/{file}') == (
        '; get the published weights of sapiens_0.3b by: hf download facebook/sapiens '
        f'{inside} --local-dir weights && mv weights/{inside} weights/{file}'
    )
    assert all(published('sapiens', name).file.endswith('_clean.pth') for name in SAPIENS)


@pytest.mark.parametrize(
    ('source', 'name'),
    [
        ('timm', 'vit_tny'),
        ('timm', 'vit_tiny_patch16_224.no_such_tag'),
        ('timm', None),
        ('timm', 'test_vit9'),
        ('torchvision', 'vit_b_16'),
        ('transformers', 'facebook/dinov2-small'),
        ('lightly', 'vit_tiny_patch16_224'),
        (lambda options: None, 'vit_tiny_patch16_224'),
        ('sapiens', 'sapiens_9b'),
    ],
)
def test_nothing_is_guessed(source, name):
    assert published(source, name) is None
    assert where_to_get(source, name, 'a.pth') == ''


def test_every_repository_of_timm_is_named_as_timm_names_it():
    names = [name for name in timm.list_pretrained() if timm.get_pretrained_cfg(name).hf_hub_id]
    found = [published('timm', name) for name in names]
    assert [each.repository for each in found] == [
        timm.get_pretrained_cfg(name).hf_hub_id for name in names
    ]
    assert all('/' in each.repository[:-1] for each in found)


MISSING = (
    "checkpoint 'weights/vit_tiny_patch16_224.safetensors' does not exist; get the published "
    f'weights of vit_tiny_patch16_224 by: {DOWNLOAD} weights && mv weights/model.safetensors '
    'weights/vit_tiny_patch16_224.safetensors'
)
FILE = 'weights/vit_tiny_patch16_224.safetensors'


@pytest.fixture
def _empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    'options',
    [
        dict(checkpoint=FILE),
        dict(checkpoint_path=FILE),
        dict(init_cfg=dict(type='Pretrained', checkpoint=FILE)),
    ],
)
@pytest.mark.usefixtures('_empty')
def test_the_error_of_a_missing_checkpoint_names_the_command(options):
    with pytest.raises(FileNotFoundError) as caught:
        ViTFeatBackbone('vit_tiny_patch16_224', **options).init_weights()
    assert str(caught.value) == MISSING


@pytest.mark.usefixtures('_empty')
def test_the_tools_show_it(capsys):
    Path('a.png').write_bytes((ROOT / 'docs/benchmark_table.png').read_bytes())
    given = ['--model', 'vit_tiny_patch16_224', '--checkpoint', FILE, '--out', 'a.npz']
    assert load_tool('extract_features').main(['a.png', *given]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f'error: {MISSING}'


@pytest.mark.usefixtures('_empty')
def test_a_config_that_names_it_in_an_init_cfg_has_it_in_its_line():
    start = dict(type='Pretrained', checkpoint=FILE)
    vit = dict(type='ViTFeatBackbone', model_name='vit_tiny_patch16_224', init_cfg=start)
    facts = Facts.of(Config(dict(model=dict(type='EncoderDecoder', backbone=vit))))
    assert errors_of(weight_file_findings(facts)) == [MISSING]


@pytest.mark.usefixtures('_empty')
def test_a_checkpoint_of_a_training_is_published_nowhere(capsys):
    config = str(ROOT / 'configs/upernet_vit.py')
    options = ['--config', config, '--checkpoint', 'epoch_1.pth', '--out', 'a.npz']
    Path('a.png').write_bytes((ROOT / 'docs/benchmark_table.png').read_bytes())
    assert load_tool('extract_features').main(['a.png', *options]) == 2
    line = f"error: checkpoint 'epoch_1.pth' does not exist{OF_TRAINING}"
    assert capsys.readouterr().err.splitlines()[-1] == line


@pytest.mark.parametrize('name', ['epoch_10.pth', 'iter_40000.pth', 'best_mIoU_epoch_2.pth'])
def test_a_trainings_file_is_no_published_one(name):
    assert where_to_get('timm', 'vit_tiny_patch16_224', f'work_dirs/a/{name}') == OF_TRAINING
