"""docs/migrate.md: what it shows after the change builds, and gives the features of before."""

import pickle
import re
from pathlib import Path

import pytest
import timm
import torch
from mmengine.registry import MODELS
from redraw import error, images, redraw

from vit_backbones.config.loading import load_config

PAGE = (Path(__file__).resolve().parents[1] / 'docs/migrate.md').read_text()


def blocks(heading):
    """Python on the page under a heading, each block as code."""
    section = PAGE.split(f'\n## {heading}\n')[1].split('\n## ')[0]
    return re.findall(r'```python\n(.*?)```', section, re.DOTALL)


def run(block, **names):
    """What a block defines."""
    exec(block, names)
    return names


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def equal(vit, expected):
    """Whether maps are those expected, up to rounding."""
    return all(error(*both) <= 1 for both in zip(vit, expected, strict=True))


def test_a_config_of_mmpretrain_changes_its_type_only(here):
    before, after = (run(block)['backbone'] for block in blocks('mmpretrain'))
    assert after == before | dict(type='ViTFeatBackbone')
    trained = redraw(MODELS.build(after | dict(init_cfg=None)))
    weights = {f'backbone.{name}': tensor for name, tensor in trained.state_dict().items()}
    torch.save(dict(state_dict=weights), 'vit.pth')
    vit = MODELS.build(after).eval()
    vit.init_weights()
    x = images(64, 96)
    assert equal(vit(x), trained.eval()(x))


@torch.no_grad()
def test_mmsegs_vit_keeps_its_features_and_its_neck(here):
    import mmseg.models  # noqa: F401

    before, after = (run(block)['model'] for block in blocks('mmseg'))
    old = redraw(MODELS.build(before['backbone'] | dict(type='mmseg.VisionTransformer')))
    old.eval()  # gives None
    whole = {f'backbone.{name}': tensor for name, tensor in old.state_dict().items()}
    torch.save(dict(state_dict=whole), 'vit.pth')
    assert after['backbone'].pop('_delete_')
    vit = MODELS.build(after['backbone']).eval()
    for x in (images(512, 512), images(120, 180)):
        assert equal(vit(x), old(x))
    assert after['neck'] == before['neck']
    neck = MODELS.build(after['neck'] | dict(type='mmseg.MultiLevelNeck'))
    assert [each.shape[-1] for each in neck(vit(images(64, 64)))] == [16, 8, 4, 2]


def test_a_file_of_detectron2_is_rewritten_and_loads(here):
    recipe, rewrite = blocks('detectron2')
    Path('mine.py').write_text(recipe)
    options = dict(load_config('mine.py').model.backbone, model_name='vit_tiny_patch16_224')
    small = options | dict(img_size=(256, 256), drop_path_rate=0.0)
    trained = redraw(MODELS.build(small | dict(checkpoint=None)))
    own = {n: t.numpy() for n, t in trained.vit.state_dict().items()}
    held = {f'backbone.net.{name}': value for name, value in own.items()}
    with open('model_final_61ccd1.pkl', 'wb') as file:
        pickle.dump(dict(model=held | {'backbone.simfp_2.0.bias': own['pos_embed']}), file)
    with pytest.raises(ValueError, match=r"'model_final_61ccd1.pkl' is no .pth, "):
        MODELS.build(small | dict(checkpoint='model_final_61ccd1.pkl'))
    run(rewrite)
    x = images(96, 160)
    assert equal(MODELS.build(small).eval()(x), trained.eval()(x))


@torch.no_grad()
def test_lightlys_backbone_is_shared_or_read_from_its_file(here):
    pytest.importorskip('lightly.models.modules')
    build, share, read = blocks('Lightly')
    names = run(build)
    vit = redraw(names['vit']).eval()
    shared = run(share, vit=vit)['backbone'].eval()
    torch.save(vit.state_dict(), 'mae.pth')
    loaded = MODELS.build(run(read)['backbone']).eval()
    x = images(224, 224)
    for backbone in (shared, loaded):
        backbone.out_type = 'raw'
        assert torch.equal(backbone(x)[-1], vit.encode(x))


@torch.no_grad()
def test_timms_features_only_is_equal_bit_for_bit():
    before, after = blocks('timm')
    old = redraw(run(before)['vit']).eval()
    vit = run(after)['backbone'].eval()
    vit.vit.load_state_dict(old.model.state_dict())
    x = images(224, 224)
    assert all(torch.equal(*both) for both in zip(vit(x), old(x), strict=True))
    with pytest.raises(AssertionError, match="doesn't match model"):
        old(images(250, 333))
    assert [tuple(each.shape[-2:]) for each in vit(images(250, 333))] == [(16, 21)] * 4
    assert isinstance(vit.vit, timm.models.VisionTransformer)
