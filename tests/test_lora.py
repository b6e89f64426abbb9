"""LoRA: what is trained, what is saved, and what merging gives."""

import re
import sys

import pytest
import torch
from redraw import TINY, backbone, error, images, redraw, timm_vit
from torch import nn
from torchvision.models import VisionTransformer

from vit_backbones import ViTFeatBackbone
from vit_backbones.lora import inject

pytest.importorskip('peft')
LORA = dict(r=3, alpha=6, targets=('qkv', 'fc1'))


def test_a_layer_is_not_taken_for_the_end_of_another_name():
    """As in TNT, where peft gave updates to the convolution `pixel_embed.proj` too."""
    vit = nn.ModuleDict({'proj': nn.Linear(4, 4), 'embed': nn.ModuleDict()})
    vit['embed']['proj'] = nn.Conv2d(3, 4, 2)
    inject(vit, dict(targets='proj'))
    assert [name for name, each in vit.named_modules() if hasattr(each, 'base_layer')] == ['proj']


@torch.no_grad()
def test_updates_are_the_products_of_peft():
    """W + alpha / r * B A, written out."""
    vit, stock = backbone(depth=2, lora=LORA), timm_vit(depth=2)
    assert error(backbone(depth=2)(images(60, 80))[0], vit(images(60, 80))[0]) > 1
    weights = {}
    for name in stock.state_dict():
        layer = name.removesuffix('.weight').removesuffix('.bias')
        own = vit.vit.get_submodule(layer) if layer != name else None
        if hasattr(own, 'base_layer') and name.endswith('weight'):
            update = own.lora_B.default.weight @ own.lora_A.default.weight
            weights[name] = own.base_layer.weight + 6 / 3 * update
        elif hasattr(own, 'base_layer'):
            weights[name] = own.base_layer.bias
        else:
            weights[name] = vit.vit.state_dict()[name]
    plain = backbone(depth=2)
    plain.vit.load_state_dict(weights)
    x = images(60, 80)
    assert error(vit(x)[0], plain(x)[0]) <= 1
    vit.merge_lora()
    assert set(vit.state_dict()) == set(plain.state_dict())
    assert error(vit(x)[0], plain(x)[0]) <= 1


def test_updates_alone_are_trained():
    vit = backbone(depth=2, lora=LORA).train()
    vit(images(64, 64))[0].square().sum().backward()
    learns = {name for name, p in vit.named_parameters() if p.requires_grad}
    assert learns == {name for name, p in vit.named_parameters() if p.grad is not None}
    assert {name.split('.lora_')[1] for name in learns} == {'A.default.weight', 'B.default.weight'}


@torch.no_grad()
@pytest.mark.parametrize('way', ['checkpoint', 'init_cfg'])
def test_weights_load_under_the_updates(way, tmp_path):
    stock = timm_vit(depth=12)
    torch.save(stock.state_dict(), tmp_path / 'vit.pth')
    path = str(tmp_path / 'vit.pth')
    given = {way: path if way == 'checkpoint' else dict(type='Pretrained', checkpoint=path)}
    vit = ViTFeatBackbone(TINY, lora=LORA, **given)
    vit.init_weights()
    plain = ViTFeatBackbone(TINY, checkpoint=path)
    x = images(64, 80)
    assert error(vit.eval()(x)[0], plain.eval()(x)[0]) <= 1e-6


@torch.no_grad()
def test_a_saved_training_is_resumed():
    vit = backbone(depth=1, lora=LORA)
    again = backbone(depth=1, lora=LORA)
    redraw(again, seed=1)
    again.load_state_dict(vit.state_dict())
    x = images(48, 64)
    assert error(again(x)[0], vit(x)[0]) == 0


def test_updates_in_frozen_blocks_learn():
    vit = backbone(depth=2, lora=LORA, frozen_stages=2).train()
    vit(images(64, 64))[0].square().sum().backward()
    assert all(p.grad is not None for n, p in vit.named_parameters() if '.lora_' in n)


@pytest.mark.parametrize('stages', range(-1, 5))
def test_their_dropout_is_active_in_frozen_blocks_too(stages):
    """While a frozen block itself stays in eval mode."""
    options = dict(lora=dict(LORA, dropout=0.5), frozen_stages=stages, drop_path_rate=0.1)
    vit = backbone(depth=4, **options).train()
    drops = [m for name, m in vit.named_modules() if name.endswith('lora_dropout.default')]
    assert [drop.training for drop in drops] == [True] * 8
    assert [block.norm1.training for block in vit.vit.blocks] == [i >= stages for i in range(4)]
    assert error(vit(images(64, 64))[0], vit(images(64, 64))[0]) > 1
    assert not any(module.training for module in vit.eval().modules())


def test_after_merging_nothing_of_them_is_left():
    vit = backbone(depth=2, lora=LORA)
    assert vit.lora_alpha == 6
    vit.merge_lora()
    vit.merge_lora()
    assert vit.state_dict().keys() == backbone(depth=2).state_dict().keys()
    vit.load_state_dict(backbone(depth=2).state_dict())


def test_layers_of_updates_are_those_of_their_blocks():
    attention = VisionTransformer(64, 16, 2, 2, 32, 64)
    vit = ViTFeatBackbone.from_module(attention, lora=dict(targets=['in_proj', 'out_proj']))
    layers = {n: vit.get_layer_depth(n)[0] for n, _ in vit.named_parameters() if 'lora_' in n}
    assert len(layers) == 8
    assert all(f'encoder_layer_{layer - 1}.' in name for name, layer in layers.items())


def test_merging_leaves_the_model_that_was_given():
    stock = timm_vit(depth=1)
    before = {name: value.clone() for name, value in stock.state_dict().items()}
    vit = redraw(ViTFeatBackbone.from_module(stock, lora=LORA), gain=0.1)
    copy = {name: value.clone() for name, value in stock.state_dict().items()}
    vit.merge_lora()
    assert all(torch.equal(value, copy[name]) for name, value in stock.state_dict().items())
    assert set(copy) == set(before)


@torch.no_grad()
def test_weights_of_a_plain_training_load_beneath_the_updates():
    plain, vit = backbone(depth=1), backbone(depth=1, lora=LORA)
    for name, value in vit.vit.named_parameters():
        if 'lora_B' in name:
            value.zero_()
    redraw(plain, seed=5)
    missing = vit.load_state_dict(plain.state_dict(), strict=False)
    assert all('.lora_' in name for name in missing.missing_keys)
    assert missing.unexpected_keys == []
    x = images(48, 64)
    assert error(vit(x)[0], plain(x)[0]) <= 1


def test_targets_are_linear_layers_alone():
    vit = backbone(depth=1, lora=dict(targets='proj'))
    named = {name.split('.lora_')[0] for name, _ in vit.named_parameters() if '.lora_' in name}
    assert named == {'vit.blocks.0.attn.proj'}


@pytest.mark.parametrize(
    ('lora', 'message'),
    [
        (dict(targets=()), 'lora.targets is empty'),
        (dict(dropout=-1), r'lora\.dropout must be in'),
        (dict(r=0), r'lora\.r must be at least 1'),
        (dict(rank=4), r"lora has no 'rank'; it takes r, alpha, targets, dropout"),
        (dict(targets=['query']), r"'query', and no linear layer .* here fc1, fc2, proj, qkv"),
        (dict(targets='patch_embed.proj'), r"'patch_embed.proj', which is a Conv2d; only linear"),
    ],
)
def test_what_cannot_be_is_refused(lora, message):
    with pytest.raises(ValueError, match=message):
        ViTFeatBackbone(TINY, lora=lora)


@pytest.mark.parametrize('targets', [None, 5, dict(qkv=1)])
def test_targets_of_another_type_are_refused(targets):
    message = f'lora.targets takes ends of names of linear layers, got {targets}'
    with pytest.raises(TypeError, match=re.escape(message)):
        ViTFeatBackbone(TINY, lora=dict(targets=targets))


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'peft', None)
    with pytest.raises(ImportError, match='lora needs peft: pip install peft'):
        ViTFeatBackbone(TINY, lora=LORA)
