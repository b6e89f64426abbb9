"""Learning rates of EoMT by layer, against a table written by hand from the released code."""

import pytest
import timm
from mmengine.optim import build_optim_wrapper
from torch import nn

import vit_backbones.training  # noqa: F401  (registers the constructor)
from vit_backbones import ViTFeatBackbone
from vit_backbones.heads.joint_features import ThroughBackbone

# Of a ViT with 4 blocks at a rate of 1 and a decay of 1/2
BLOCKS = {0: 0.125, 1: 0.25, 2: 0.5, 3: 1.0}
EMBEDDINGS = ('cls_token', 'pos_embed', 'patch_embed.proj.weight', 'patch_embed.proj.bias')


class Head(ThroughBackbone, nn.Module):
    """What `EoMTHead` has of its own."""

    def __init__(self, num_blocks):
        super().__init__()
        self.num_blocks = num_blocks
        self.query_embed = nn.Embedding(5, 64)
        self.norm = nn.LayerNorm(64)


class OwnBlocks(nn.Module):
    """As `PlainMaskHead`, whose blocks are not those of the ViT."""

    num_blocks = 2


class Model(nn.Module):
    def __init__(self, num_blocks=2, **options):
        super().__init__()
        vit = timm.create_model('test_vit', depth=4, num_classes=0)
        self.backbone = ViTFeatBackbone.from_module(vit, **options)
        self.panoptic_head = Head(num_blocks)


def found(model, constructor='EoMTOptimWrapperConstructor', **paramwise):
    """(rate, weight decay, mark) of each parameter that the optimizer holds."""
    optimizer = dict(type='AdamW', lr=1.0, weight_decay=0.05)
    options = dict(constructor=constructor, paramwise_cfg=paramwise)
    groups = build_optim_wrapper(model, dict(optimizer=optimizer, **options)).optimizer.param_groups
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[p]: (g['lr'], g['weight_decay'], g.get('in_vit')) for g in groups for p in g['params']
    }


def expected(model, full=()):
    """What the release gives each parameter, with some blocks at the full rate."""
    rates = {}
    for name, _ in model.named_parameters():
        inside = name.removeprefix('backbone.vit.')
        rate = 1.0
        if inside in EMBEDDINGS:
            rate = 0.125
        elif inside.startswith('blocks.') and int(inside.split('.')[1]) not in full:
            rate = BLOCKS[int(inside.split('.')[1])]
        rates[name] = (rate, 0.05, name.startswith('backbone.'))
    return rates


def test_rates_are_those_released_and_all_of_it_decays():
    model = Model()
    rates = found(model, decay_rate=0.5)
    assert rates == expected(model)
    assert rates['backbone.vit.norm.weight'] == (1.0, 0.05, True)
    assert rates['panoptic_head.query_embed.weight'] == (1.0, 0.05, False)


@pytest.mark.parametrize(('num_blocks', 'full'), [(2, (2, 3)), (3, (1, 2, 3)), (4, (0, 1, 2, 3))])
def test_joint_blocks_may_learn_at_the_full_rate(num_blocks, full):
    """Embeddings stay below block 0, as released."""
    model = Model(num_blocks)
    assert found(model, decay_rate=0.5, joint_decay=False) == expected(model, full)


def test_one_layer_differs_from_the_rule_of_the_others():
    ours = found(Model(), 'ViTLayerDecayConstructor', decay_rate=0.5)
    assert ours['backbone.vit.blocks.3.attn.qkv.weight'] == (0.5, 0.05, None)
    assert ours['backbone.vit.blocks.3.attn.qkv.bias'] == (0.5, 0.0, None)


def test_norms_and_biases_need_not_decay():
    rates = found(Model(), decay_rate=0.5, decay_all=False)
    assert rates['backbone.vit.blocks.3.attn.qkv.weight'] == (1.0, 0.05, True)
    assert rates['backbone.vit.blocks.3.attn.qkv.bias'] == (1.0, 0.0, True)
    assert rates['panoptic_head.norm.weight'] == (1.0, 0.0, False)


def test_frozen_layers_are_left_out_and_the_others_stay():
    model = Model(frozen_stages=2)
    rates = found(model, decay_rate=0.5)
    assert rates == {
        name: rate
        for name, rate in expected(model).items()
        if dict(model.named_parameters())[name].requires_grad
    }
    assert not any('blocks.1.' in name for name in rates)


def test_custom_keys_come_on_top():
    rates = found(Model(), decay_rate=0.5, custom_keys=dict(query_embed=dict(lr_mult=3.0)))
    assert rates['panoptic_head.query_embed.weight'] == (3.0, 0.05, False)


def test_without_a_head_in_the_blocks_of_the_vit_none_are_joint():
    model = Model()
    model.panoptic_head = OwnBlocks()
    message = (
        'joint_decay=False needs a head whose queries go through the ViT, as EoMT has, and Model '
        'has none: leave it out'
    )
    with pytest.raises(ValueError, match=f'{message}$'):
        found(model, decay_rate=0.5, joint_decay=False)


@pytest.mark.parametrize('name', ['joint_decay', 'decay_all'])
def test_options_are_switches(name):
    with pytest.raises(ValueError, match=f'paramwise_cfg.{name} is True or False, got 1$'):
        found(Model(), decay_rate=0.5, **{name: 1})
