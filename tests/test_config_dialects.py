"""Backbones and necks as people's configs have them today: they build with `type` replaced."""

import copy
import importlib

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from redraw import error, images, redraw, timm_vit
from torch import nn

import vit_backbones  # noqa: F401  (mmcv's operators come first)
from vit_backbones import SimpleFeaturePyramid, ViTFeatBackbone
from vit_backbones.checks.recipe import constructor_findings
from vit_backbones.config.facts import Facts
from vit_backbones.training import layer_decay

TINY = 'vit_tiny_patch16_224'
SMALL = dict(embed_dims=48, num_layers=4, num_heads=3, feedforward_channels=96)


def build(**config):
    """As a config builds it; the config is not changed by that."""
    config = dict(type='ViTFeatBackbone', **config)
    before = copy.deepcopy(config)
    built = MODELS.build(config)
    assert config == before
    return built.eval()


def shapes(backbone, *size):
    with torch.no_grad():
        return [tuple(m.shape[1:]) for m in backbone(images(*size))]


def test_1_timm_backbone_of_mmpretrain():
    vit = build(model_name=TINY, features_only=True, pretrained=False, out_indices=[2, 5, 8, 11])
    assert shapes(vit, 64, 96) == [(192, 4, 6)] * 4


def test_2_timm_backbone_of_mmseg(tmp_path):
    weights = timm_vit(TINY, depth=12).state_dict()
    torch.save(weights, tmp_path / 'vit.pth')
    vit = build(
        model_name=TINY,
        features_only=True,
        pretrained=False,
        checkpoint_path=str(tmp_path / 'vit.pth'),
        in_channels=3,
        init_cfg=None,
        img_size=512,
    )
    assert torch.equal(vit.vit.blocks[0].attn.qkv.weight, weights['blocks.0.attn.qkv.weight'])


def test_features_only_false_is_refused():
    with pytest.raises(ValueError, match='features_only must be True, got False'):
        build(model_name=TINY, features_only=False)


def test_two_checkpoints_are_refused():
    with pytest.raises(ValueError, match=r'a.pth. and checkpoint_path=.b.pth. are one'):
        build(model_name=TINY, checkpoint='a.pth', checkpoint_path='b.pth')


def test_3_vision_transformer_of_mmpretrain(tmp_path):
    """Weights come from a whole classifier's file, by `init_cfg` and its prefix."""
    options = dict(arch=SMALL, img_size=(64, 96), out_type='featmap', final_norm=True)
    trained = redraw(build(**options))
    classifier = nn.ModuleDict(dict(backbone=trained, head=nn.Linear(48, 10)))
    torch.save(dict(state_dict=classifier.state_dict()), tmp_path / 'classifier.pth')
    vit = build(
        **options,
        init_cfg=dict(
            type='Pretrained', checkpoint=str(tmp_path / 'classifier.pth'), prefix='backbone.'
        ),
    )
    vit.init_weights()
    assert error(vit(images(64, 96))[0], trained(images(64, 96))[0]) <= 1


def test_4_dinov2_without_out_type():
    vit = build(arch='dinov2-small', img_size=518, patch_size=14, out_indices=[8, 9, 10, 11])
    assert (vit.strides, vit.out_channels) == ((14,) * 4, (384,) * 4)
    assert shapes(vit, 28, 42) == [(384, 2, 3)] * 4


def test_5_sapiens():
    vit = build(
        arch=SMALL,
        img_size=(64, 48),
        with_cls_token=False,
        out_type='featmap',
        final_norm=True,
        qkv_bias=True,
        patch_cfg=dict(padding=2),
    )
    assert shapes(vit, 64, 48) == [(48, 4, 3)]


@pytest.mark.parametrize(
    'neck',
    [
        dict(type='mmseg.MultiLevelNeck', in_channels=[192] * 4, out_channels=32),
        dict(type='mmseg.Feature2Pyramid', embed_dim=192, norm_cfg=dict(type='BN')),
    ],
    ids=lambda neck: neck['type'],
)
def test_6_necks_of_mmseg(neck):
    import mmseg.models  # noqa: F401

    vit = build(model_name=TINY, out_indices=(2, 5, 8, 11))
    maps = MODELS.build(neck).eval()(vit(images(64, 96)))
    assert [m.shape[-1] for m in maps] == {
        'mmseg.MultiLevelNeck': [3, 6, 12, 24],
        'mmseg.Feature2Pyramid': [24, 12, 6, 3],
    }[neck['type']]


def test_7_simple_fpn_of_vitdet():
    neck = dict(
        type='SimpleFeaturePyramid',
        backbone_channel=192,
        in_channels=[48, 96, 192, 192],
        out_channels=32,
        num_outs=5,
        norm_cfg=dict(type='LN2d', requires_grad=True),
    )
    maps = MODELS.build(neck)(build(model_name=TINY)(images(128, 64)))
    assert [m.shape[-2] for m in maps] == [32, 16, 8, 4, 2]


def test_7_other_channels_are_refused():
    with pytest.raises(ValueError, match=r'backbone_channel=192 goes with in_channels=\[48, 96, 1'):
        SimpleFeaturePyramid([192] * 4, backbone_channel=192)


def test_8_backbone_of_ones_own_for_dinov3(tmp_path):
    name = 'vit_small_patch16_dinov3'
    torch.save(timm_vit(name, depth=12).state_dict(), tmp_path / 'dinov3.pth')
    vit = build(model_name=name, checkpoint_path=tmp_path / 'dinov3.pth', out_indices='even4')
    assert shapes(vit, 64, 96) == [(384, 4, 6)] * 4


def test_9_not_finetuned():
    vit = build(model_name=TINY, frozen_stages=12)
    assert not any(p.requires_grad for p in vit.parameters())


@pytest.fixture
def lora_model():
    """Builds mmpretrain's `LoRAModel` around a backbone."""
    pytest.importorskip('mmpretrain')
    try:
        importlib.import_module('mmpretrain.models')
    except TypeError:
        pytest.skip('mmpretrain 1.2 does not import beside transformers 5')

    def build_around(**options):
        module = dict(type='ViTFeatBackbone', arch=SMALL, img_size=(64, 96), **options)
        lora = dict(type='mmpretrain.LoRAModel', alpha=16, rank=4, drop_rate=0.1, module=module)
        return MODELS.build(lora | dict(targets=[dict(type='qkv')])).eval()

    return build_around


@pytest.mark.parametrize('stages', [-1, 4])
def test_10_lora_model_of_mmpretrain(stages, lora_model, tmp_path):
    """It starts with the maps of the file's weights; later they are those of weights + B A."""
    plain = redraw(build(arch=SMALL, img_size=(64, 96), out_indices=(1, 3)))
    torch.save(plain.state_dict(), tmp_path / 'vit.pth')
    weights = dict(type='Pretrained', checkpoint=str(tmp_path / 'vit.pth'))
    model = lora_model(out_indices=(1, 3), init_cfg=weights, frozen_stages=stages)
    model.init_weights()  # as a runner does
    assert (model.out_channels, model.strides) == (plain.out_channels, plain.strides)
    x = images(50, 90)
    assert all(error(*both) <= 1 for both in zip(model(x), plain(x), strict=True))
    sum(out.square().mean() for out in model(x)).backward()
    learning = {n: p for n, p in model.named_parameters() if p.grad is not None}
    assert len(learning) == 8
    assert all('.attn.qkv.lora_' in name for name in learning)
    model, plain, x = model.double(), plain.double(), x.double()  # float32 merges with rounding
    for i, block in enumerate(plain.vit.blocks):
        down, up = (
            redraw(getattr(model.module.vit.blocks[i].attn.qkv, f'lora_{part}'), seed=i).weight
            for part in ('down', 'up')
        )
        block.attn.qkv.weight.data += up @ down * 16 / 4
    assert all(error(*both) <= 1 for both in zip(model(x), plain(x), strict=True))


def test_10_what_a_lora_model_saves_is_loaded(lora_model):
    one, other = (nn.ModuleDict(dict(backbone=lora_model())) for _ in range(2))
    redraw(one, seed=1)
    saved = one.state_dict()
    assert len(saved) == 8
    other.load_state_dict(saved, strict=True)
    assert all(torch.equal(other.state_dict()[name], tensor) for name, tensor in saved.items())


DECAY = dict(num_layers=12, decay_rate=0.7, decay_type='layer_wise')


def learning_rates(model, **wrapper):
    optimizer = dict(type='AdamW', lr=1e-4, weight_decay=0.05)
    built = build_optim_wrapper(model, dict(optimizer=optimizer, **wrapper)).optimizer
    rates = {p: group['lr'] for group in built.param_groups for p in group['params']}
    return {name: rates[p] for name, p in model.named_parameters()}


def test_11_layer_decay_of_mmdet_and_mmseg_with_our_constructor():
    model = nn.ModuleDict(dict(backbone=build(model_name=TINY), head=nn.Linear(2, 2)))
    rates = learning_rates(model, constructor='ViTLayerDecayConstructor', paramwise_cfg=DECAY)
    assert rates['backbone.vit.pos_embed'] == pytest.approx(1e-4 * 0.7**13)
    assert rates['backbone.vit.blocks.11.norm1.bias'] == pytest.approx(1e-4 * 0.7)
    assert rates['head.weight'] == 1e-4


@pytest.mark.parametrize(
    ('scope', 'name', 'options'),
    [
        ('mmdet', 'LearningRateDecayOptimizerConstructor', DECAY),
        ('mmseg', 'LearningRateDecayOptimizerConstructor', DECAY),
        ('mmseg', 'LayerDecayOptimizerConstructor', dict(num_layers=12, layer_decay_rate=0.7)),
    ],
)
def test_11_their_own_constructors_are_answered_by_ours(scope, name, options):
    """They end with a NotImplementedError that says nothing."""
    model = nn.Module()
    model.backbone = build(model_name=TINY)
    wrapper = dict(constructor=f'{scope}.{name}', paramwise_cfg=dict(options))
    importlib.import_module(f'{scope}.engine')
    with pytest.raises(NotImplementedError):
        learning_rates(model, **wrapper)
    backbone = dict(type='ViTFeatBackbone', model_name=TINY)
    config = Config(dict(model=dict(backbone=backbone), optim_wrapper=wrapper))
    (found,) = constructor_findings(Facts.of(config))
    assert found.level == 'error'
    assert "'ViTLayerDecayConstructor' in its place" in found.text
    assert '\n' not in found.text
    config.optim_wrapper.constructor = 'ViTLayerDecayConstructor'
    assert not [*constructor_findings(Facts.of(config))]
    rates = learning_rates(model, **config.optim_wrapper)
    assert rates['backbone.vit.blocks.0.norm1.bias'] == pytest.approx(1e-4 * 0.7**12)


def test_11_another_depth_in_the_config_is_passed_over(monkeypatch):
    lines = []
    monkeypatch.setattr(layer_decay, 'print_log', lambda line, **options: lines.append(line))
    model = build(model_name=TINY, out_indices=5)
    rates = learning_rates(model, constructor='ViTLayerDecayConstructor', paramwise_cfg=DECAY)
    assert rates['vit.blocks.5.norm1.bias'] == pytest.approx(1e-4 * 0.7)
    expected = f'paramwise_cfg.num_layers=12 is passed over: {TINY} has 6 layers here'
    assert lines[0] == expected


def test_11_custom_keys_of_mmengine():
    model = nn.ModuleDict(dict(backbone=build(model_name=TINY), head=nn.Linear(2, 2)))
    rates = learning_rates(
        model, paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1)}, norm_decay_mult=0.0)
    )
    assert {rates.pop('head.weight'), rates.pop('head.bias')} == {1e-4}
    assert list(rates.values()) == pytest.approx([1e-5] * len(rates))


def test_12_checkpointing_under_bfloat16():
    vit = build(model_name=TINY, with_cp=True, out_indices=0).train()
    with torch.autocast('cpu', torch.bfloat16):
        vit(images(32, 48))[0].float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vit.parameters())


def test_13_out_type_is_set_on_a_built_model():
    vit = build(model_name=TINY)
    vit.out_type = 'cls_token'
    assert shapes(vit, 32, 48) == [(192,)]


def test_a_config_object_is_as_good_as_a_dict():
    config = Config(
        dict(backbone=dict(type='ViTFeatBackbone', model_name=TINY, out_indices=[0, 1]))
    )
    assert isinstance(MODELS.build(config.backbone), ViTFeatBackbone)
    assert config.backbone.out_indices == [0, 1]
