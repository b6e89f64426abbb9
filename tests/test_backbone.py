"""The contract of ViTFeatBackbone, from outputs and geometry to what bad arguments get."""

import copy
import importlib
import math
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import mmengine.runner
import numpy as np
import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from redraw import TINY, backbone, copy_weights, error, images, redraw, timm_layers, timm_vit
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from vit_backbones import ViTFeatBackbone
from vit_backbones.arguments import resolve_out_indices

REPOSITORY = Path(__file__).parents[1]
SMALL = dict(depth=4, width=24)
# One of each kind of prefix, positions and final norm
KINDS = [
    'vit_tiny_patch16_224',
    'deit3_small_patch16_224',
    'vit_small_patch14_reg4_dinov2',
    'vit_base_patch32_clip_224',
    'vit_base_patch16_siglip_224',
    'vit_little_patch16_reg4_gap_256',
    'eva02_tiny_patch14_224',
    'vit_pe_core_tiny_patch16_384',
    'vit_pe_spatial_gigantic_patch14_448',
    'vit_small_patch16_dinov3',
    'vit_small_patch16_rope_mixed_ape_224',
]


def weights(vit):
    return {name: tensor.clone() for name, tensor in vit.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# Outputs


@pytest.mark.parametrize('name', KINDS)
@pytest.mark.parametrize('out_type', ['featmap', 'cls', 'cls_token', 'raw', 'avg_featmap'])
@torch.no_grad()
def test_out_types_come_from_the_same_tokens(name, out_type):
    vit = backbone(name, **SMALL, out_type='raw')
    x = images(50, 90)
    tokens = vit(x)[0]
    prefix, (ph, pw) = vit.num_prefix_tokens, vit.layer_strides[0]
    if out_type.startswith('cls') and not vit.has_cls_token:
        with pytest.raises(ValueError, match=r"needs a CLS token.*out_type='avg_featmap'"):
            vit.out_type = out_type
        return
    vit.out_type = out_type
    (out,) = vit(x)
    expected = {
        'featmap': tokens[:, prefix:].mT.reshape(1, 24, math.ceil(50 / ph), math.ceil(90 / pw)),
        'cls': tokens[:, 0],
        'cls_token': tokens[:, 0],
        'raw': tokens,
        'avg_featmap': tokens[:, prefix:].mean(1),
    }[out_type]
    assert torch.equal(out, expected)


@pytest.mark.parametrize('name', ['vit_base_patch16_siglip_224', 'vit_medium_patch16_gap_240'])
@pytest.mark.parametrize(
    'options',
    [dict(with_cls_token=True), dict(cls_readout='add'), dict(out_type='cls')],
    ids=lambda options: next(iter(options)),
)
def test_a_cls_token_that_is_not_there_is_refused(name, options):
    with pytest.raises(ValueError, match=f'{next(iter(options))}=.*CLS token'):
        backbone(name, **SMALL, **options)


@pytest.mark.parametrize(('readout', 'channels'), [('add', 24), ('concat', 48)])
@torch.no_grad()
def test_cls_readout(readout, channels):
    vit = backbone('vit_small_patch16_dinov3', **SMALL, cls_readout=readout)
    x = images(32, 48)
    (maps,) = vit(x)
    vit.out_type = 'cls'
    cls = vit(x)[0][:, :, None, None]
    vit.out_type, vit.cls_readout = 'featmap', 'ignore'
    plain = vit(x)[0]
    expected = plain + cls if readout == 'add' else torch.cat([plain, cls.expand_as(plain)], 1)
    torch.testing.assert_close(maps, expected)
    vit.cls_readout = readout
    assert vit.out_channels == (maps.shape[1],) == (channels,)


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        (-1, (11,)),
        (0, (0,)),
        ((2, 5), (2, 5)),
        ([5, 2, -1], (5, 2, 11)),
        (range(3), (0, 1, 2)),
        (np.int64(3), (3,)),
        (np.array([1, -2]), (1, 10)),
        ('last4', (8, 9, 10, 11)),
        ('even4', (2, 5, 8, 11)),
        (Config(dict(a=[3, -3])).a, (3, 9)),
        (Config(dict(a=(3, -3))).a, (3, 9)),
    ],
    ids=str,
)
def test_out_indices_take_every_form(given, expected):
    assert resolve_out_indices(given, 12) == expected


def test_even4_of_a_depth_that_four_does_not_divide():
    assert resolve_out_indices('even4', 27) == (5, 12, 19, 26)


def test_out_indices_of_the_caller_stay_unchanged():
    given = [-1, 0]
    backbone(**SMALL, out_indices=given)
    assert given == [-1, 0]


@torch.no_grad()
def test_outputs_come_in_the_order_asked_for():
    vit = backbone(**SMALL, out_indices=(3, 0, 2), out_type='cls')
    x = images(32, 32)
    outputs = dict(zip((3, 0, 2), vit(x), strict=True))
    vit.out_indices = (0, 2, 3)
    assert all(torch.equal(out, outputs[i]) for i, out in zip((0, 2, 3), vit(x), strict=True))
    assert not torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize(
    ('norm', 'normed'),
    [
        (dict(), [False, True]),
        (dict(norm='last'), [False, True]),
        (dict(norm='all'), [True, True]),
        (dict(norm='none'), [False, False]),
        (dict(final_norm=True), [False, True]),
        (dict(final_norm=False), [False, False]),
    ],
    ids=str,
)
@torch.no_grad()
def test_norm_says_which_outputs_are_normed(norm, normed):
    reference = timm_vit(**SMALL)
    vit = backbone(**SMALL, out_indices=(1, 3), out_type='raw', **norm)
    copy_weights(vit.vit, reference.state_dict())
    x = images(40, 70)
    expected = [timm_layers(reference, x, [i], n)[0] for i, n in zip((1, 3), normed, strict=True)]
    assert all(error(*both) <= 1 for both in zip(vit(x), expected, strict=True))


@pytest.mark.parametrize('norm', ['last', 'all', 'none'])
def test_a_model_without_final_norm_says_so(norm, log):
    backbone('vit_little_patch16_reg4_gap_256', **SMALL, norm=norm)
    said = any('no final norm of its own: its outputs are not normed' in line for line in log)
    assert said == (norm != 'none')


# Geometry; for the laws of padding see test_padding.py


@cache
def small(name):
    return backbone(name, depth=1, width=24)


def test_a_plain_vit_names_its_own_geometry():
    vit = backbone('vit_small_patch14_reg4_dinov2', **SMALL, img_size=(126, 70), out_indices=1)
    assert vit.layer_channels == [24, 24]
    assert vit.layer_strides == [(14, 14)] * 2
    assert vit.padded_size((1, 29)) == (14, 42)
    assert vit.fixed_size is None
    assert (vit.native_size, vit.built_size) == ((518, 518), (126, 70))
    vit.set_input_size((28, 29))
    assert vit.built_size == (28, 42)


@pytest.mark.slow
def test_a_model_of_one_size_names_it():
    vit = ViTFeatBackbone('beit_base_patch16_224', img_size=(64, 96)).to('meta')
    assert vit.fixed_size == vit.built_size == vit.padded_size((49, 81)) == (64, 96)


@pytest.mark.parametrize('stride', [4, 16, 32])
@pytest.mark.parametrize('size', [(140, 210), (133, 250)], ids=str)
@torch.no_grad()
def test_out_stride_keeps_a_bright_square_in_its_place(size, stride):
    """With a patch embedding that takes means and no blocks, a map is the picture, smaller."""
    vit = small('vit_small_patch14_dinov2')
    vit = copy.deepcopy(vit)
    vit.out_stride, vit.norm = stride, 'none'
    vit.vit.patch_embed.proj.weight.fill_(1 / 588)
    for tensor in (vit.vit.patch_embed.proj.bias, vit.vit.pos_embed):
        tensor.zero_()
    vit.vit.blocks[0].forward = lambda tokens: tokens
    x = torch.zeros(1, 3, *size)
    x[..., 42:98, 84:140] = 1
    energy = vit(x)[0][0, 0]
    rows, columns = ((torch.arange(n) + 0.5) * stride for n in energy.shape)
    centre = (energy.sum(1) @ rows / energy.sum(), energy.sum(0) @ columns / energy.sum())
    assert centre == pytest.approx((70, 112), abs=stride / 4)


@torch.no_grad()
def test_positions_resampled_on_the_fly_leave_parameters_and_input_alone():
    vit = backbone(**SMALL)
    x = images(90, 130)
    before = {name: (id(p), p.clone()) for name, p in vit.named_parameters()}
    given = x.clone()
    vit(x)
    assert torch.equal(x, given)
    for name, parameter in vit.named_parameters():
        assert id(parameter) == before[name][0]
        assert torch.equal(parameter, before[name][1])


@torch.no_grad()
def test_square_weights_in_a_rectangular_model_and_back(tmp_path):
    reference = timm_vit(**SMALL)
    torch.save(reference.state_dict(), tmp_path / 'square.pth')
    wide = backbone(**SMALL, img_size=(1024, 128), checkpoint=tmp_path / 'square.pth')
    expected = timm.layers.resample_abs_pos_embed(reference.pos_embed, (64, 8), (14, 14))
    torch.testing.assert_close(wide.vit.pos_embed, expected)
    torch.save(wide.state_dict(), tmp_path / 'wide.pth')
    back = backbone(**SMALL, checkpoint=tmp_path / 'wide.pth')
    expected = timm.layers.resample_abs_pos_embed(wide.vit.pos_embed, (14, 14), (64, 8))
    torch.testing.assert_close(back.vit.pos_embed, expected)


@pytest.mark.parametrize('load', [nn.Module.load_state_dict, 'mmengine', 'init_cfg'])
@torch.no_grad()
def test_equal_counts_of_another_grid_are_resampled(load, tmp_path):
    """Also as part of a whole model, whose file is left as it was read."""
    saved = nn.ModuleDict(dict(backbone=backbone(**SMALL, img_size=(512, 2048))))
    path = str(tmp_path / 'whole.pth')
    torch.save(dict(state_dict=saved.state_dict()), path)
    pretrained = dict(type='Pretrained', checkpoint=path, prefix='backbone')
    other = backbone(**SMALL, img_size=1024, init_cfg=pretrained if load == 'init_cfg' else None)
    whole = nn.ModuleDict(dict(backbone=other))
    if load == 'init_cfg':
        other.init_weights()
    elif load == 'mmengine':
        mmengine.runner.load_checkpoint(whole, path, map_location='cpu', strict=True)
    else:
        state = saved.state_dict()
        before = dict(state)
        load(whole, state)
        assert all(state[name] is tensor for name, tensor in before.items())
    old = saved['backbone'].vit.pos_embed
    expected = timm.layers.resample_abs_pos_embed(old, (64, 64), (32, 128))
    torch.testing.assert_close(other.vit.pos_embed, expected)
    assert other.position_grid.tolist() == [64, 64]
    assert torch.equal(other.vit.norm.weight, saved['backbone'].vit.norm.weight)


def test_set_input_size_can_be_saved_and_loaded(tmp_path):
    vit = backbone(**SMALL)
    vit.set_input_size((100, 300))
    torch.save(vit.state_dict(), tmp_path / 'vit.pth')
    again = backbone(**SMALL, img_size=(112, 304), checkpoint=tmp_path / 'vit.pth')
    assert same(again.state_dict(), vit.state_dict())


# Initialisation


class Detector(BaseModule):
    def __init__(self, backbone):
        super().__init__(dict(type='Constant', layer='Linear', val=3.0))
        self.backbone, self.head = backbone, nn.Linear(2, 2)


@pytest.mark.parametrize('name', [TINY, 'eva02_tiny_patch14_224'])
def test_loaded_weights_survive_init_weights_of_a_detector(name, tmp_path):
    torch.save(timm_vit(name, **SMALL).state_dict(), tmp_path / 'vit.pth')
    vit = backbone(name, **SMALL, checkpoint=tmp_path / 'vit.pth')
    before, detector = weights(vit), Detector(vit)
    detector.init_weights()
    vit.init_weights()
    assert detector.head.weight.unique() == 3
    assert same(weights(vit), before)


def test_weights_from_a_state_dict_survive_init_weights():
    vit = backbone(**SMALL)
    before = weights(vit)
    vit.init_weights()
    assert same(weights(vit), before)


def test_pretrained_of_init_cfg_loads_once(tmp_path):
    reference = timm_vit(**SMALL).state_dict()
    file = {'backbone.vit.' + name: tensor for name, tensor in reference.items()}
    torch.save(dict(state_dict=file | {'decode_head.weight': torch.ones(2)}), tmp_path / 'a.pth')
    config = dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth'), prefix='backbone.')
    vit = backbone(**SMALL, init_cfg=config)
    detector = Detector(vit)
    detector.init_weights()
    assert same(weights(vit.vit), reference)
    redraw(vit, seed=1)
    trained = weights(vit)
    vit.init_weights()
    assert same(weights(vit), trained)


def test_init_cfg_of_layers_is_applied_to_random_weights():
    vit = backbone(**SMALL, init_cfg=[dict(type='Constant', layer='LayerNorm', val=0.5)])
    before = weights(vit)
    vit.init_weights()
    assert vit.vit.norm.weight.unique() == 0.5
    assert torch.equal(vit.vit.pos_embed, before['vit.pos_embed'])


# Freezing


def train_steps(vit, num_steps=3):
    parameters = [p for p in vit.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.1, weight_decay=0.1)
    vit.train()
    for _ in range(num_steps):
        sum(out.square().mean() for out in vit(images(32, 48))).backward()
        optimizer.step()


@pytest.mark.parametrize('name', [TINY, 'vit_small_patch16_dinov3', 'vit_base_patch32_clip_224'])
@pytest.mark.parametrize('stages', [-1, 0, 2])
def test_frozen_stages_stay_bitwise_equal_and_the_rest_learns(name, stages):
    vit = backbone(name, **SMALL, frozen_stages=stages)
    before = weights(vit.vit)
    train_steps(vit)
    for key, parameter in vit.vit.named_parameters():
        block = int(key.split('.')[1]) + 1 if key.startswith('blocks') else 0
        frozen = (99 if key.startswith('norm.') else block) <= stages
        assert torch.equal(parameter, before[key]) == frozen, key


def test_frozen_parts_stay_in_eval_after_train():
    vit = backbone(**SMALL, frozen_stages=2).train()
    assert [block.training for block in vit.vit.blocks] == [False, False, True, True]
    assert not any(part.training for block in vit.vit.blocks[:2] for part in block.modules())
    assert (vit.vit.patch_embed.training, vit.vit.norm.training) == (False, True)


def test_frozen_blocks_build_no_graph():
    vit = backbone(**SMALL, out_indices=(1, 3), frozen_stages=2).train()
    frozen, learning = vit(images(32, 48))
    assert (frozen.requires_grad, learning.requires_grad) == (False, True)


def test_frozen_stages_of_the_depth_freeze_everything():
    vit = backbone(**SMALL, frozen_stages=4).train()
    assert not any(parameter.requires_grad for parameter in vit.parameters())
    assert not vit(images(32, 48).requires_grad_())[0].requires_grad


def test_an_adapter_in_frozen_blocks_learns():
    vit = backbone(**SMALL, frozen_stages=4).train()
    qkv = vit.vit.blocks[0].attn.qkv
    vit.vit.blocks[0].attn.qkv = nn.Sequential(qkv, adapter := nn.Linear(72, 72))
    vit(images(32, 48))[0].square().mean().backward()
    assert adapter.weight.grad.abs().sum() > 0
    assert qkv.weight.grad is None


@pytest.mark.parametrize(('stages', 'random'), [(4, False), (-1, True)])
@torch.no_grad()
def test_drop_path_is_off_in_frozen_blocks(stages, random):
    vit = backbone(**SMALL, drop_path_rate=0.9, frozen_stages=stages).train()
    x = images(32, 48, batch=8)
    assert torch.equal(vit(x)[0], vit(x)[0]) != random


def test_drop_path_grows_with_depth():
    vit = backbone(**SMALL, drop_path_rate=0.3)
    # One after the attention and one after the MLP of each block; the first block has none
    rates = [each.drop_prob for each in vit.modules() if type(each).__name__ == 'DropPath']
    assert rates == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.3, 0.3])


# Gradients


@pytest.mark.parametrize('name', KINDS)
@pytest.mark.parametrize('norm', ['last', 'all', 'none'])
@pytest.mark.parametrize('indices', [-1, 1, (0, 3)], ids=str)
def test_every_parameter_gets_a_gradient(name, norm, indices):
    vit = backbone(name, **SMALL, out_indices=indices, norm=norm).train()
    sum(out.square().mean() for out in vit(images(40, 60))).backward()
    assert [key for key, p in vit.named_parameters() if p.grad is None] == []


def run_backward(vit, x):
    """Gradients, and how many values the forward pass kept for the backward pass."""
    own = {parameter.data_ptr() for parameter in vit.parameters()}
    kept = {}

    def pack(tensor):
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = sum(out.square().mean() for out in vit(x))
    num_kept = sum(kept.values())
    loss.backward()
    return {name: p.grad for name, p in vit.named_parameters()}, num_kept


@pytest.mark.parametrize('name', [TINY, 'vit_small_patch16_dinov3'])
def test_with_cp_keeps_less_and_gives_equal_gradients(name, monkeypatch):
    modes = []
    inner = torch.utils.checkpoint.checkpoint

    def spy(*args, use_reentrant, **kwargs):
        modes.append(use_reentrant)
        return inner(*args, use_reentrant=use_reentrant, **kwargs)

    monkeypatch.setattr(torch.utils.checkpoint, 'checkpoint', spy)
    plain = backbone(name, **SMALL, out_indices='last4').train()
    thrifty = backbone(name, **SMALL, out_indices='last4', with_cp=True).train()
    copy_weights(thrifty, plain.state_dict())
    expected, num_plain = run_backward(plain, images(64, 96))
    gradients, num_thrifty = run_backward(thrifty, images(64, 96))
    assert modes == [False] * 4
    assert num_thrifty < 0.5 * num_plain
    torch.testing.assert_close(gradients, expected)


def test_a_copy_runs_as_the_original():
    vit = backbone(**SMALL, drop_path_rate=0.1, frozen_stages=1)
    x = images(40, 50)
    assert torch.equal(copy.deepcopy(vit)(x)[0], vit(x)[0])


@pytest.mark.parametrize('indices', [-1, 1])
def test_layer_depth_counts_from_the_embeddings_to_the_norm(indices):
    vit = backbone(**SMALL, out_indices=indices, norm='all')
    last = len(vit.vit.blocks) + 1
    layers = {
        'vit.pos_embed': 0,
        'vit.patch_embed.proj.bias': 0,
        'vit.blocks.0.norm1.weight': 1,
        f'vit.blocks.{last - 2}.mlp.fc1.weight': last - 1,
        'vit.norm.weight': last,
    }
    for name, layer in layers.items():
        assert vit.get_layer_depth(f'backbone.{name}', 'backbone.') == (layer, last + 1)
    assert vit.get_layer_depth('decode_head.conv.weight', 'backbone.') == (last, last + 1)


@pytest.mark.parametrize(
    ('last', 'name', 'source'),
    [
        ('blocks.1', TINY, 'timm'),
        ('stages.1', 'pvt_v2_b0', 'timm'),
        ('layers.1', 'swin_tiny_patch4_window7_224', 'timm'),
        ('layers.1', 'vit', 'transformers'),
        ('encoder.layers.1', 'swin', 'transformers'),
    ],
)
def test_layer_depth_counts_the_blocks_that_are_left(last, name, source):
    if source == 'transformers':
        transformers = pytest.importorskip('transformers')
        name = {
            'vit': transformers.ViTConfig(hidden_size=24, num_hidden_layers=4),
            'swin': transformers.SwinConfig(embed_dim=24, depths=[1] * 4, num_heads=[3] * 4),
        }[name]
    vit = ViTFeatBackbone(name, source=source, out_indices=(0, 1))
    learning = [key for key, p in vit.named_parameters() if p.requires_grad]
    layers = {key: vit.get_layer_depth(key) for key in learning}
    assert {num_layers for _, num_layers in layers.values()} == {4}
    assert {layers[key][0] for key in learning if f'{last}.' in key} == {2}
    assert max(layers.values()) == (2, 4)
    assert vit.get_layer_depth('head.weight') == (3, 4)


# Registration


@pytest.mark.parametrize('scope', ['mmengine', 'mmdet', 'mmseg'])
def test_builds_from_the_registry_of(scope):
    registry = importlib.import_module(f'{scope}.registry').MODELS
    config = dict(type='ViTFeatBackbone', model_name='test_vit', out_indices=[-1])
    assert type(registry.build(config)) is ViTFeatBackbone
    assert MODELS.get('ViTFeatBackbone') is ViTFeatBackbone


@pytest.mark.slow
def test_a_config_in_another_folder_finds_it_by_custom_imports(tmp_path):
    (tmp_path / 'config.py').write_text(
        "custom_imports = dict(imports=['vit_backbones'])\n"
        "model = dict(type='mmengine.ViTFeatBackbone', model_name='test_vit')\n"
    )
    program = (
        'from mmengine.config import Config\n'
        'from mmengine.registry import MODELS\n'
        "model = MODELS.build(Config.fromfile('config.py').model)\n"
        'print(type(model).__module__, model.out_channels)\n'
    )
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', program],
        cwd=tmp_path,
        env=os.environ | {'PYTHONPATH': str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1:] == ['vit_backbones.backbone (64,)'], done.stderr


# What bad arguments get


@pytest.mark.parametrize(
    ('options', 'kind', 'message'),
    [
        (dict(source='tim'), ValueError, "source must be one of 'timm'.*got 'tim'"),
        (dict(source=['timm']), ValueError, r"source must be one of .*got \['timm'\]"),
        (dict(out_type='map'), ValueError, "out_type must be one of 'featmap', 'cls'.*'map'"),
        (dict(cls_readout='sum'), ValueError, "cls_readout must be one of 'ignore', 'add'"),
        (dict(norm='first'), ValueError, "norm must be one of 'last', 'all', 'none', got 'first'"),
        (dict(norm='all', final_norm=False), ValueError, "norm='all' and final_norm=False"),
        (dict(with_cp='no'), TypeError, "with_cp must be True or False, got 'no'"),
        (dict(mask_padding='x'), TypeError, 'mask_padding must be True or False'),
        (dict(use_rel_pos=1), TypeError, 'use_rel_pos must be True or False'),
        (dict(allow_partial='no'), TypeError, 'allow_partial must be True or False'),
        (dict(pos_interp='cubic'), ValueError, "pos_interp must be one of 'timm', 'original'"),
        (dict(out_indices='last3'), ValueError, "out_indices must be one of 'last4', 'even4'"),
        (dict(out_indices=12), ValueError, r'\[-12, 11\], because the model has 12 blocks, got 12'),
        (dict(out_indices=(0, -13)), ValueError, 'got -13'),
        (dict(out_indices=(1, -11)), ValueError, r'must name different blocks, got \(1, -11\)'),
        (dict(out_indices=[]), ValueError, r'must name different blocks, got \[\]'),
        (dict(out_indices=None), TypeError, 'out_indices takes ints, got None'),
        (dict(out_indices=True), TypeError, 'out_indices takes ints, got True'),
        (dict(out_indices=[1.0]), TypeError, 'out_indices takes ints, got 1.0'),
        (dict(frozen_stages=13), ValueError, r"frozen_stages must be in \[-1, 12\], because 'vit"),
        (dict(frozen_stages=-2), ValueError, 'got -2'),
        (dict(frozen_stages=True), TypeError, 'frozen_stages takes ints, got True'),
        (dict(in_channels=0), ValueError, 'in_channels must be at least 1, got 0'),
        (dict(in_channels=True), TypeError, 'in_channels takes ints, got True'),
        (dict(out_stride=0), ValueError, 'out_stride must be at least 1, got 0'),
        (dict(out_stride=2.5), TypeError, 'out_stride takes ints, got 2.5'),
        (dict(img_size=(224, 0)), ValueError, 'img_size must be at least 1, got 0'),
        (dict(img_size=(1, 2, 3)), ValueError, r'img_size must be an int or \(height, width\)'),
        (dict(patch_size=True), TypeError, 'patch_size takes ints, got True'),
        (dict(drop_path_rate=1.5), ValueError, r'drop_path_rate must be in \[0, 1\), got 1.5'),
        (dict(drop_path_rate='a'), ValueError, r"drop_path_rate must be in \[0, 1\), got 'a'"),
        (dict(with_cls_token='no'), ValueError, "with_cls_token must be None.*got 'no'"),
        (dict(pretrained=True, checkpoint='a.pth'), ValueError, 'give one of pretrained'),
        (dict(checkpoint='a.pth'), FileNotFoundError, "checkpoint 'a.pth' does not exist"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_bad_arguments_get_one_line(options, kind, message):
    with pytest.raises(kind, match=message) as caught:
        ViTFeatBackbone(TINY, **options)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('shape', [(3, 32, 32), (1, 4, 32, 32), (1, 1, 3, 32, 32)], ids=str)
def test_images_of_another_shape_are_refused(shape):
    message = rf'images must be \(B, 3, H, W\), got \({", ".join(map(str, shape))}\)'
    with pytest.raises(ValueError, match=message):
        backbone(**SMALL)(torch.zeros(shape))


def test_is_init_is_settable_as_in_mmengine():
    vit = ViTFeatBackbone('test_vit')
    vit.is_init = True
    assert vit.is_init
    assert vit.holds_weights
