"""What the README shows works as it stands there."""

import importlib
import re
from pathlib import Path

import pytest
import torch
from checked_configs import errors_of
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from vit_backbones import ViTFeatBackbone  # (mmcv's operators)
from vit_backbones.checks.wiring import wiring_findings
from vit_backbones.config.loading import load_config

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / 'README.md').read_text()
BLOCKS = re.findall(r'```python\n(.*?)```', README, re.DOTALL)
CONFIGS = [block for block in BLOCKS if block.startswith("_base_ = 'mm")]


@pytest.mark.parametrize('block', CONFIGS, ids=lambda block: block[9:14])
def test_config_fragment_builds_and_fits(block, tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(block)
    cfg = Config.fromfile(path)
    cfg.model.backbone.checkpoint = None
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model).eval()
    assert not errors_of(wiring_findings(model))
    maps = model.extract_feat(torch.zeros(1, 3, 64, 96))
    sizes = [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
    assert [tuple(each.shape[-2:]) for each in maps] == sizes[: len(maps)]
    assert len(maps) == len(model.neck.strides)


def test_both_toolboxes_are_shown():
    assert [re.search(r"'(\w+)::", block)[1] for block in CONFIGS] == ['mmdet', 'mmseg']


def test_recipe_is_inherited_as_shown(tmp_path):
    (tmp_path / 'mine.py').write_text(next(b for b in BLOCKS if "'vit_backbones::" in b))
    cfg = load_config(tmp_path / 'mine.py')
    assert (cfg.train_dataloader.batch_size, cfg.model.type) == (4, 'EncoderDecoder')


def test_recipes_and_backbones_are_those_that_ship():
    configs = ROOT / 'configs'
    folders = {path.parent.name for path in configs.glob('[!_]*/*.py')}
    assert set(re.findall(r'\]\(configs/(\w+)\)', README)) == folders
    told = re.search(r'in `_base_/backbones`: (.*?)\. Its file', README, re.DOTALL)[1]
    names = set()
    for name in re.findall(r'`(.+?)`', told):
        sizes = re.search(r'{(.+)}', name)
        names |= {re.sub('{.+}', size, name) for size in (sizes[1].split(',') if sizes else [''])}
    assert names == {path.stem for path in (configs / '_base_/backbones').glob('*.py')}


@pytest.mark.parametrize(
    'path', sorted((ROOT / 'configs').glob('*/README.md')), ids=lambda p: p.parent.name
)
def test_readme_of_a_method_names_its_configs(path):
    names = {each.name for each in path.parent.glob('*.py')}
    assert set(re.findall(r'^\| `(.+?)`', path.read_text(), re.MULTILINE)) == names


def test_features_in_python_have_the_shapes_it_says():
    block = next(block for block in BLOCKS if 'embeddings' in block)
    names = {}
    exec(block.replace('pretrained=True', 'pretrained=False'), names)
    assert [tuple(each.shape) for each in names['maps']] == [(1, 192, 16, 21)] * 2
    assert tuple(names['embeddings'].shape) == (1, 192)


def test_optimizer_builds_as_shown():
    block = next(block for block in BLOCKS if block.startswith('optim_wrapper'))
    names = {}
    exec(block, names)
    vit = MODELS.build(dict(type='ViTFeatBackbone', model_name='test_vit'))
    groups = build_optim_wrapper(vit, names['optim_wrapper']).optimizer.param_groups
    assert {round(group['lr'] / 1e-4, 4) for group in groups} == {
        round(0.7**power, 4) for power in range(8)
    }


def test_vitdets_backbone_builds_as_shown():
    block = next(block for block in BLOCKS if 'use_rel_pos' in block)
    names = {}
    exec(block, names)
    vit = MODELS.build(names['backbone'] | dict(checkpoint=None))
    tables = {len(block.attn.rel_pos_h) for block in vit.vit.blocks}
    assert tables == {2 * 14 - 1, 2 * 64 - 1}


def test_adapter_builds_and_fits_as_shown():
    block = next(block for block in BLOCKS if 'ViTAdapter' in block)
    names = {}
    exec(block, names)
    backbone = MODELS.build(names['model']['backbone'])
    assert list(backbone.out_channels) == names['model']['decode_head']['in_channels']
    maps = backbone.eval()(torch.zeros(1, 3, 64, 96))
    assert [tuple(each.shape[-2:]) for each in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]


def test_preprocessor_of_mask_padding_is_the_one_shown():
    block = next(block for block in BLOCKS if 'mask_padding=True' in block)
    names = {}
    exec(block, names)
    for module in names['custom_imports']['imports']:
        importlib.import_module(module)
    vit = ViTFeatBackbone('test_vit', **names['model']['backbone'])
    MODELS.build(names['model']['data_preprocessor'])(
        dict(inputs=[torch.zeros(3, 20, 30), torch.zeros(3, 24, 28)], data_samples=None)
    )
    assert vit._image_sizes.sizes == [(20, 30), (24, 28)]
