"""Learning rates by layer, against tables written by hand."""

import re
from pathlib import Path

import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch import nn
from torchvision.models import VisionTransformer

import vit_backbones.mmdet  # noqa: F401  (registers the head)
import vit_backbones.training.layer_decay as module
from vit_backbones import ViTFeatBackbone
from vit_backbones.training.layer_decay import is_decayed, learning_rate

ROOT = Path(__file__).parents[2]
# Of a ViT with 2 blocks at lr 1 and a decay rate of 1/2: name, learning rate, whether decayed
BACKBONE = """
cls_token                   0.125  no
pos_embed                   0.125  no
patch_embed.proj.weight     0.125  yes
patch_embed.proj.bias       0.125  no
blocks.0.norm1.weight       0.25   no
blocks.0.norm1.bias         0.25   no
blocks.0.attn.qkv.weight    0.25   yes
blocks.0.attn.qkv.bias      0.25   no
blocks.0.attn.proj.weight   0.25   yes
blocks.0.attn.proj.bias     0.25   no
blocks.0.norm2.weight       0.25   no
blocks.0.norm2.bias         0.25   no
blocks.0.mlp.fc1.weight     0.25   yes
blocks.0.mlp.fc1.bias       0.25   no
blocks.0.mlp.fc2.weight     0.25   yes
blocks.0.mlp.fc2.bias       0.25   no
blocks.1.norm1.weight       0.5    no
blocks.1.norm1.bias         0.5    no
blocks.1.attn.qkv.weight    0.5    yes
blocks.1.attn.qkv.bias      0.5    no
blocks.1.attn.proj.weight   0.5    yes
blocks.1.attn.proj.bias     0.5    no
blocks.1.norm2.weight       0.5    no
blocks.1.norm2.bias         0.5    no
blocks.1.mlp.fc1.weight     0.5    yes
blocks.1.mlp.fc1.bias       0.5    no
blocks.1.mlp.fc2.weight     0.5    yes
blocks.1.mlp.fc2.bias       0.5    no
norm.weight                 1      no
norm.bias                   1      no
"""
GOLDEN = {
    name: (float(rate), decayed == 'yes')
    for name, rate, decayed in map(str.split, BACKBONE.strip().splitlines())
}
# All matrices of the neck and of a Mask2Former head with one encoder and one decoder layer
LEVELS = 'neck.levels.stride'
PIXELS = 'panoptic_head.pixel_decoder'
DECODER = 'panoptic_head.transformer_decoder.layers.0'
MATRICES = {
    *(f'{LEVELS}4.rescale.{i}.weight' for i in (0, 3)),
    f'{LEVELS}8.rescale.0.weight',
    *(f'{LEVELS}{s}.{part}.conv.weight' for s in (4, 8, 16, 32) for part in ('lateral', 'output')),
    *(f'{PIXELS}.input_convs.{i}.conv.weight' for i in range(3)),
    *(
        f'{PIXELS}.encoder.layers.0.self_attn.{part}.weight'
        for part in ('sampling_offsets', 'attention_weights', 'value_proj', 'output_proj')
    ),
    *(f'{PIXELS}.encoder.layers.0.ffn.layers.{part}.weight' for part in ('0.0', '1')),
    f'{PIXELS}.level_encoding.weight',
    f'{PIXELS}.lateral_convs.0.conv.weight',
    f'{PIXELS}.output_convs.0.conv.weight',
    f'{PIXELS}.mask_feature.weight',
    *(
        f'{DECODER}.{kind}_attn.attn.{part}'
        for kind in ('self', 'cross')
        for part in ('in_proj_weight', 'out_proj.weight')
    ),
    *(f'{DECODER}.ffn.layers.{part}.weight' for part in ('0.0', '1')),
    *(f'panoptic_head.{kind}.weight' for kind in ('query_embed', 'query_feat', 'level_embed')),
    'panoptic_head.cls_embed.weight',
    *(f'panoptic_head.mask_embed.{i}.weight' for i in (0, 2, 4)),
}


@pytest.fixture
def log(monkeypatch):
    """What the constructor logs."""
    lines = []
    monkeypatch.setattr(module, 'print_log', lambda message, **kwargs: lines.append(message))
    return lines


def two_blocks(**options):
    vit = timm.create_model('test_vit', depth=2, num_classes=0)
    return ViTFeatBackbone.from_module(vit, **options)


def wrapper(model, optimizer=(), **paramwise):
    """The optimizer at lr 1 and weight decay 0.1."""
    optimizer = dict(dict(type='AdamW', lr=1.0, weight_decay=0.1), **dict(optimizer))
    options = dict(constructor='ViTLayerDecayConstructor', paramwise_cfg=paramwise)
    return build_optim_wrapper(model, dict(optimizer=optimizer, **options))


def rates(model, *args, **paramwise):
    """(learning rate, weight decay) of each parameter that the optimizer holds, by name."""
    groups = wrapper(model, *args, **paramwise).optimizer.param_groups
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[p]: (g['lr'], g['weight_decay']) for g in groups for p in g['params']}


def golden(prefix=''):
    return {f'{prefix}vit.{name}': (r, 0.1 if yes else 0) for name, (r, yes) in GOLDEN.items()}


@pytest.fixture(scope='module')
def mask2former():
    init_default_scope('mmdet')
    model = Config.fromfile(ROOT / 'configs/_base_/models/mask2former_light.py').model
    head = model.panoptic_head
    head.num_things_classes, head.loss_cls.class_weight = 2, [1.0, 1.0, 0.1]
    head.pixel_decoder.encoder.num_layers = head.transformer_decoder.num_layers = 1
    model.backbone = dict(type='ViTFeatBackbone', model_name='test_vit')
    model.neck.in_channels = 64
    built = MODELS.build(model)
    built.backbone = two_blocks()
    return built


@pytest.mark.parametrize('spelling', ['decay_rate', 'layer_decay_rate'])
def test_every_parameter_of_a_mask2former(mask2former, spelling):
    heads = {n for n, _ in mask2former.named_parameters() if not n.startswith('backbone')}
    expected = golden('backbone.') | {n: (1, 0.1 * (n in MATRICES)) for n in heads}
    assert heads > MATRICES
    assert rates(mask2former, **{spelling: 0.5}) == expected


def test_custom_keys_of_mask2former_come_on_top(mask2former):
    """As mmdet's and mmseg's configs of Mask2Former have them."""
    embed = dict(lr_mult=1.0, decay_mult=0.0)
    found = rates(
        mask2former,
        decay_rate=0.5,
        norm_decay_mult=0.0,
        custom_keys={
            'backbone': dict(lr_mult=0.1, decay_mult=1.0),
            'query_embed': embed,
            'query_feat': embed,
            'level_embed': embed,
        },
    )
    expected = golden('backbone.')
    assert {n: found[n] for n in expected} == {
        n: (pytest.approx(0.1 * rate), decay) for n, (rate, decay) in expected.items()
    }
    assert found['panoptic_head.query_embed.weight'] == (1, 0)
    assert found['panoptic_head.cls_embed.weight'] == (1, 0.1)


def test_the_longest_of_custom_keys_counts_alone():
    keys = {'blocks': dict(lr_mult=2), 'blocks.1.mlp': dict(lr_mult=3, betas=(0.5, 0.6))}
    groups = wrapper(two_blocks(), decay_rate=0.5, custom_keys=keys).optimizer.param_groups
    found = {group['lr']: group['betas'] for group in groups}
    plain = (0.9, 0.999)
    assert found == {0.125: plain, 0.5: plain, 1.0: plain, 1.5: (0.5, 0.6)}


def test_a_segmenter():
    pytest.importorskip('mmseg.models')
    head = dict(type='mmseg.FCNHead', in_channels=64, channels=8, num_classes=3, num_convs=1)
    backbone = dict(type='ViTFeatBackbone', model_name='test_vit')
    model = MODELS.build(dict(type='mmseg.EncoderDecoder', backbone=backbone, decode_head=head))
    model.backbone = two_blocks()
    parts = ('convs.0.conv', 'conv_cat.conv', 'conv_seg')
    matrices = {f'decode_head.{part}.weight' for part in parts}
    heads = {n for n, _ in model.named_parameters() if not n.startswith('backbone')}
    expected = golden('backbone.') | {n: (1, 0.1 * (n in matrices)) for n in heads}
    assert heads > matrices
    assert rates(model, decay_rate=0.5) == expected


def test_a_bare_backbone():
    vit = two_blocks()
    assert rates(vit, decay_rate=0.5) == golden()


def test_under_ddp(tmp_path):
    store = f'file://{tmp_path}/store'
    torch.distributed.init_process_group('gloo', init_method=store, rank=0, world_size=1)
    try:
        vit = two_blocks()
        wrapped = wrapper(MMDistributedDataParallel(vit), decay_rate=0.5)
    finally:
        torch.distributed.destroy_process_group()
    found = {p: g['lr'] for g in wrapped.optimizer.param_groups for p in g['params']}
    assert {n: found[p] for n, p in vit.named_parameters()} == {
        n: rate for n, (rate, _) in golden().items()
    }


def test_two_backbones_count_their_own_layers():
    deep = ViTFeatBackbone.from_module(timm.create_model('test_vit', depth=3, num_classes=0))
    found = rates(nn.ModuleDict(dict(a=two_blocks(), b=deep)), decay_rate=0.5)
    assert {n: rate for n, rate in found.items() if n.startswith('a.')} == golden('a.')
    assert found['b.vit.blocks.0.norm1.bias'] == (0.125, 0)


def test_frozen_parameters_are_left_out():
    found = rates(two_blocks(frozen_stages=1), decay_rate=0.5)
    expected = {n: rate for n, rate in golden().items() if rate[0] > 0.25}
    assert found == expected


def small(name):
    """A model of 2 layers of each source."""
    if name == 'torchvision':
        return ViTFeatBackbone.from_module(VisionTransformer(32, 16, 2, 2, 16, 32))
    if name == 'swin':
        swin = timm.create_model('swin_tiny_patch4_window7_224', depths=(1, 1), num_heads=(1, 1))
        return ViTFeatBackbone.from_module(swin)
    transformers = pytest.importorskip('transformers')
    size = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3)
    return ViTFeatBackbone(getattr(transformers, name)(**size), source='transformers')


@pytest.mark.parametrize(
    ('source', 'layers', 'undecayed'),
    [
        (
            'torchvision',
            {'encoder_layer_0': 0.25, 'encoder_layer_1': 0.5, '^encoder.ln': 1},
            {'class_token', 'encoder.pos_embedding'},
        ),
        (
            'swin',
            {'^layers.0': 0.25, '^layers.1': 0.5, '^norm': 1},
            {f'layers.{i}.blocks.0.attn.relative_position_bias_table' for i in range(2)},
        ),
        (
            'Dinov2WithRegistersConfig',
            {r'layers?\.0\.': 0.25, r'layers?\.1\.': 0.5, '^layernorm': 1},
            {f'embeddings.{n}' for n in ('cls_token', 'register_tokens', 'position_embeddings')},
        ),
    ],
)
def test_every_source(source, layers, undecayed):
    vit = small(source)
    found = rates(vit, decay_rate=0.5)
    parameters = dict(vit.vit.named_parameters())
    for name, parameter in parameters.items():
        rate = next((r for part, r in layers.items() if re.search(part, name)), 0.125)
        decayed = parameter.ndim > 1 and name not in undecayed
        assert found[f'vit.{name}'] == (rate, 0.1 * decayed), name
    assert parameters.keys() > undecayed


@pytest.mark.parametrize(
    ('layer', 'rate'), [(0, 1e-3 * 0.7**13), (1, 1e-3 * 0.7**12), (12, 7e-4), (13, 1e-3)]
)
def test_rates_of_vit_b(layer, rate):
    assert learning_rate(1e-3, 0.7, layer, 14) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize(
    ('name', 'decayed'),
    [
        ('blocks.0.attn.rel_pos_h', False),
        ('rope.freqs', False),
        ('embeddings.position_embedding.weight', False),
        ('embeddings.class_embedding', False),
        ('dist_token', False),
        ('cls_token2', False),
        ('cls_token_1', False),
        ('patch_pos', False),
        ('level_embed', False),
        ('stages.0.blocks.0.attn.logit_scale', False),
        ('layers.0.blocks.0.attn.cpb_mlp.fc1.weight', False),
        ('stages.0.blocks.0.attn.attention_biases', False),
        ('blocks.0.attn.temperature', False),
        ('attn.pos_proj.weight', True),
        ('token_mixer.weight', True),
    ],
)
def test_positions_and_tokens_are_not_decayed(name, decayed):
    assert is_decayed(name, torch.zeros(2, 2)) is decayed


def test_scales_of_maps_are_vectors():
    assert not is_decayed('stages.0.blocks.0.gamma', torch.zeros(8, 1, 1))


def test_one_line_a_group_is_logged(log):
    groups = wrapper(two_blocks(), decay_rate=0.5).optimizer.param_groups
    (text,) = log  # of many lines, so for the log file alone
    _, *lines = text.splitlines()
    assert len(lines) == len(groups) == 7  # the norm is not decayed, alone in its layer
    assert lines[0] == 'layer 0 of 4: lr 0.125, weight_decay 0, 3 tensors'
    assert lines[-1] == 'layer 3 of 4: lr 1, weight_decay 0, 2 tensors'


def test_the_optimizers_own_weight_decay_is_for_matrices_too():
    """PyTorch's AdamW decays by 0.01 where a config says nothing."""
    optimizer = dict(optimizer=dict(type='AdamW', lr=1.0))
    options = dict(constructor='ViTLayerDecayConstructor', paramwise_cfg=dict(decay_rate=0.5))
    vit = two_blocks()
    groups = build_optim_wrapper(vit, optimizer | options).optimizer.param_groups
    decays = {p: group['weight_decay'] for group in groups for p in group['params']}
    assert {n: decays[p] for n, p in vit.named_parameters()} == {
        f'vit.{name}': 0.01 * yes for name, (_, yes) in GOLDEN.items()
    }


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(), r'needs one decay_rate \(or layer_decay_rate\) in \(0, 1\], got none'),
        (dict(decay_rate='a'), r"in \(0, 1\], got 'a'"),
        (dict(decay_rate=1.5), r'in \(0, 1\], got 1.5'),
        (dict(decay_rate=0.5, layer_decay_rate=0.6), 'got 0.5, 0.6'),
        (dict(decay_rate=0.5, decay_type='stage_wise'), "must be one of 'layer_wise', .*'stage_w"),
        (dict(decay_rate=0.5, norm_decay_mult=1.0), 'norm_decay_mult must be 0, got 1.0'),
        (dict(decay_rat=0.5), "a key of paramwise_cfg must be one of 'decay_rate'.*'decay_rat'"),
    ],
    ids=str,
)
def test_bad_options_get_one_line(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        wrapper(two_blocks(), **options)
    assert '\n' not in str(caught.value)


def test_a_model_without_our_backbone_is_refused():
    with pytest.raises(ValueError, match='found no ViTFeatBackbone in Linear'):
        wrapper(nn.Linear(2, 2), decay_rate=0.5)
